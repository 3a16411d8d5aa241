"""Arguments for changes inside the memory: rule, decay, features and convolutions."""

from __future__ import annotations

from asi_lab.researcher.grammar.argument import Argument, Arguments

MEMORY: Arguments = {
    ("rule", "delta"): Argument(
        "The delta rule first reads what a key already holds and writes only the difference, so a new "
        "value replaces the old one instead of piling up beside it.",
        "Its chunked form solves a triangular system, which makes steps slower than a plain sum.",
        "Recall of key and value pairs should rise most, and held-out loss should fall somewhat.",
    ),
    ("rule", "additive"): Argument(
        "Plain additive writes superpose associations, which keeps the update linear, commutative and "
        "free of the triangular solve inside each chunk.",
        "Old associations are never overwritten, so interference grows with the number of keys.",
        "We expect faster steps at equal or slightly worse loss, and a loss of recall on crowded contexts.",
    ),
    ("decay", "none"): Argument(
        "Without decay an association stays readable at full strength until something overwrites it, "
        "however far back it was written.",
        "Stale context is never cleared, which hurts where topics change.",
        "Copying over long distances may improve while perplexity on mixed documents may worsen.",
    ),
    ("decay", "fixed"): Argument(
        "Constant retention per head, as in RetNet, gives the heads a spread of time scales without "
        "anything to learn or to go unstable.",
        "The horizons cannot adapt to the text; a wrong constant stays wrong.",
        "A small gain in held-out loss is plausible, with long-range recall slightly down in the fast heads.",
    ),
    ("decay", "head"): Argument(
        "One learned retention per head lets training decide which heads are short-lived and which keep "
        "their memory for hundreds of tokens.",
        "It adds a single scalar per head, and all tokens are forgotten at the same rate.",
        "If horizons matter, loss falls early in training and the heads' retentions move apart.",
    ),
    ("decay", "data"): Argument(
        "A forget gate computed from the token can clear the state at a boundary and hold it inside a "
        "passage, which neither overwriting nor constant retention can do.",
        "One more small projection per head, and too much forgetting early on can starve recall.",
        "Perplexity should fall on text with changing topics; recall probes should stay about level.",
    ),
    ("beta", "none"): Argument(
        "Writing every token at full strength removes a gate and leaves selection to the keys themselves.",
        "Filler words are stored as firmly as names and numbers.",
        "Loss may rise slightly; if it does not, the write gate was superfluous in this layer.",
    ),
    ("beta", "sigmoid"): Argument(
        "A write strength between zero and one lets each head skip tokens that are not worth storing and "
        "average over noisy repetitions.",
        "It costs one scalar projection per head and keeps all eigenvalues of the update positive.",
        "We look for steadier training and better selective copying with little effect on plain text loss.",
    ),
    ("beta", "double"): Argument(
        "Letting the write strength reach two gives the update negative eigenvalues, so the state can "
        "flip as well as fade; this is known to help with parity and counting.",
        "Reflections do not shrink the state, hence gradients may be noisier.",
        "State-tracking probes should improve; language loss is expected to move little.",
    ),
    ("normaliser", True): Argument(
        "Dividing by the accumulated query and key weight makes the read-out a weighted mean of past "
        "values, whose size does not depend on the position.",
        "The sharpness of the mean is limited by the positive features.",
        "Loss at late positions should come closer to that at early ones, with smoother training.",
    ),
    ("normaliser", False): Argument(
        "Leaving out the running denominator lets the read-out carry evidence in its magnitude until the "
        "output norm fixes the scale.",
        "The raw sums grow along the sequence.",
        "Slightly cheaper steps and about equal loss would show that the denominator was redundant.",
    ),
}

FEATURES: Arguments = {
    ("feature_map", "silu"): Argument(
        "SiLU features are smooth and mildly negative for small inputs, so keys can still point away from "
        "each other while large activations stay nearly linear.",
        "They are not positive, which rules out dividing by sums of features.",
        "Expect smooth optimisation and recall close to that of the seed.",
    ),
    ("feature_map", "relu"): Argument(
        "ReLU sets half of the features to exact zero, which makes keys sparse and lowers the overlap "
        "between unrelated ones.",
        "Features that are never active receive no gradient.",
        "Less interference should show as better associative recall; loss may be a little noisier.",
    ),
    ("feature_map", "elu1"): Argument(
        "ELU plus one is positive everywhere with a gradient that never vanishes at once, the classic "
        "choice for kernelised attention.",
        "All keys share a positive direction, so they overlap more than signed ones.",
        "Stable training is expected, possibly with weaker recall when many keys compete.",
    ),
    ("feature_map", "identity"): Argument(
        "Without a nonlinearity keys may use the whole sphere, including opposite directions, which "
        "doubles the room for nearly orthogonal addresses.",
        "Matching becomes a bilinear form with less selectivity per feature.",
        "Recall with many pairs should gain if address space was the bottleneck.",
    ),
    ("feature_map", "softplus"): Argument(
        "Softplus gives strictly positive features with a soft threshold, a smooth relative of ReLU that "
        "leaves no feature dead.",
        "A floor under every feature blurs the match between query and key.",
        "We expect calm gradients and a loss near the ELU variant, with no sudden dead heads.",
    ),
    ("feature_map", "squared_relu"): Argument(
        "Squaring the rectified features stresses the strongest ones, so that a query picks few keys much "
        "more sharply.",
        "Large activations grow quadratically and weak ones learn slowly.",
        "Induction and exact recall should sharpen; a slower start of training is likely.",
    ),
    ("qk_norm", "l2"): Argument(
        "Unit-length keys make every write equally strong in its own direction and bound the eigenvalues "
        "of the state update.",
        "The length of a key can no longer signal importance.",
        "Training should tolerate higher learning rates, with a modest improvement of final loss.",
    ),
    ("qk_norm", "sum"): Argument(
        "Dividing positive features by their sum turns each key into a distribution over slots, so a "
        "write is shared out like a soft table look-up.",
        "Spread-out keys write weakly, so the memory fills slowly.",
        "Early loss may lag; recall could gain once keys become peaked.",
    ),
    ("qk_norm", "rms"): Argument(
        "RMS normalisation fixes the scale of queries and keys while keeping their dot products large "
        "enough to matter against the sum of many weak matches.",
        "Scores grow with the head width, which leans on the later normalisation.",
        "A steadier gradient norm is expected and little change in perplexity.",
    ),
    ("qk_norm", "none"): Argument(
        "Unnormalised keys can say through their length how much a token matters and let dull tokens "
        "write almost nothing.",
        "The scale of the state now depends on the data and may drift during training.",
        "If salience by length is useful, word prediction improves; otherwise loss becomes noisier.",
    ),
    ("v_activation", "silu"): Argument(
        "A SiLU on the values adds a nonlinearity in front of the memory, so what is stored is a gated "
        "feature rather than a raw projection.",
        "Negative values are squeezed and signed content is partly lost.",
        "A small decrease in held-out loss is the hypothesis, at no extra parameters.",
    ),
    ("v_activation", "none"): Argument(
        "Linear values keep sign and scale of the content, and the path from stored token to output stays "
        "undistorted.",
        "The layer has one nonlinearity less.",
        "Verbatim copying should get easier; plain next-token loss could rise a touch.",
    ),
}

CONVOLUTIONS: Arguments = {
    ("qk_conv", "add"): Argument(
        "A convolution over {new} tokens on queries and keys lets an address describe a short phrase, so "
        "a match on the previous words retrieves what followed them.",
        "It adds {new} weights per key channel and slightly blurs single-token identity.",
        "Induction should be learned earlier, visible as a drop of loss on repeated phrases.",
    ),
    ("qk_conv", "remove"): Argument(
        "Without their convolution over {old} tokens, queries and keys describe exactly one token, "
        "which gives clean addresses.",
        "Shifted matches must then be built by stacking layers.",
        "We expect induction to suffer in shallow models; if not, the convolution was dead weight.",
    ),
    ("qk_conv", "widen"): Argument(
        "Widening the address window from {old} to {new} tokens makes keys specific to longer phrases and "
        "separates contexts that share their last words.",
        "Rare long phrases repeat less often, so fewer matches are found.",
        "Loss on frequent patterns should decrease, with recall of isolated tokens at some risk.",
    ),
    ("qk_conv", "narrow"): Argument(
        "Shrinking the address window from {old} to {new} tokens makes keys more general, so similar "
        "contexts match more often.",
        "Longer phrases can no longer be told apart by a single head.",
        "Single-token recall may improve; phrase-level prediction may lose a little.",
    ),
    ("v_conv", "add"): Argument(
        "Smoothing the values over {new} tokens stores a small neighbourhood under each key, so one "
        "read returns a word piece together with its surroundings.",
        "Neighbouring tokens leak into each stored value and must be untangled later.",
        "Subword completion and last-word prediction are where a gain should appear.",
    ),
    ("v_conv", "remove"): Argument(
        "Dropping the {old}-token smoothing of the values stores each token by itself, which makes "
        "retrieved content exact.",
        "Local mixing is left to other parts of the block.",
        "Copy probes should not get worse; bits per byte shows whether local mixing is missed.",
    ),
    ("v_conv", "widen"): Argument(
        "Stretching the value window from {old} to {new} tokens stores larger fragments, closer to words "
        "than to pieces.",
        "More neighbours overlap in each stored value.",
        "Fluency, seen as perplexity, may improve at the expense of exact copying.",
    ),
    ("v_conv", "narrow"): Argument(
        "Cutting the value window from {old} to {new} tokens keeps stored content closer to one token.",
        "Less local context comes back with each retrieval.",
        "Sharper copying is expected together with a nearly unchanged perplexity.",
    ),
}
