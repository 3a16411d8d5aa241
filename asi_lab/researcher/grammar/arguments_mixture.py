"""Arguments for changes around the memory: paths, routing and output."""

from __future__ import annotations

from asi_lab.researcher.grammar.argument import Argument, Arguments

PATHS: Arguments = {
    ("short_fir", "add"): Argument(
        "A depthwise FIR filter over {new} tokens models fixed local patterns directly, so the memory "
        "need not spend capacity on neighbours; it starts as the identity and cannot disturb early training.",
        "It adds {new} weights per channel and one more pass over the values.",
        "Local statistics should be learned in fewer steps, lowering loss soonest on frequent word pairs.",
    ),
    ("short_fir", "remove"): Argument(
        "Removing the short filter over {old} tokens returns local prediction to the memory and its "
        "convolutions and simplifies the mixture.",
        "Local patterns have no path of their own any more.",
        "A loss that stays within the noise would prove the filter redundant.",
    ),
    ("short_fir", "widen"): Argument(
        "The short filter grows from {old} to {new} tokens and so reaches whole words in a byte-pair "
        "vocabulary.",
        "Only a few weights per channel are added.",
        "A slight decrease of bits per byte is expected, none for recall.",
    ),
    ("short_fir", "narrow"): Argument(
        "The short filter shrinks from {old} to {new} tokens, which leaves the middle distance to the "
        "recurrent memory.",
        "Word-length patterns may fall between the paths.",
        "We expect a neutral result on loss and marginally faster steps.",
    ),
    ("long_fir", "add"): Argument(
        "A long depthwise filter over {new} tokens sees the topic of a sentence with fixed weights, "
        "between the local convolutions and the unbounded but lossy state.",
        "Its {new} taps per channel cost time, and content cannot steer them.",
        "Perplexity should benefit at medium distances while associative recall stays where it is.",
    ),
    ("long_fir", "remove"): Argument(
        "Without the filter over {old} tokens all context beyond a few tokens must pass through the "
        "recurrent state, which can select by content.",
        "Position-specific medium-range structure is lost.",
        "Steps should be cheaper; loss tells whether the medium range was served twice.",
    ),
    ("long_fir", "widen"): Argument(
        "Extending the long filter from {old} to {new} tokens covers clauses rather than phrases in one "
        "linear pass.",
        "Distant taps see little consistent signal and may only add noise.",
        "If sentence-level context was missing, the loss at late positions will go down.",
    ),
    ("long_fir", "narrow"): Argument(
        "Trimming the long filter from {old} to {new} tokens removes far taps with weak gradients.",
        "Context between the two widths now relies on the state.",
        "Equal loss at lower cost is the expected outcome.",
    ),
    ("copy", True): Argument(
        "A copy path hands the current value straight to the output as one of the routed choices, so "
        "tokens that need no context are not polluted by retrieval.",
        "The router has one more branch to learn.",
        "Gradient flow should be smoother and the first hundreds of steps should show lower loss.",
    ),
    ("copy", False): Argument(
        "Taking the copy path out of the mixture makes every output contextual and gives the remaining "
        "paths a larger share.",
        "The block's own skip connection must then carry unchanged tokens.",
        "Contextual tasks such as last-word prediction could gain a little.",
    ),
    ("residual", "none"): Argument(
        "Dropping the value residual leaves only what the paths retrieve, so the layer cannot fall back "
        "on passing its input through.",
        "Early gradients reach the values only through the paths of the mixture.",
        "Recall may become stronger because it is forced; the first steps may be slower.",
    ),
    ("residual", "fixed"): Argument(
        "A small constant share of the value is always added, an insurance that gradients reach the value "
        "projection however the rest of the layer behaves.",
        "It cannot be switched off where it hurts.",
        "Loss curves should start more steeply and end about where they did.",
    ),
    ("residual", "head"): Argument(
        "Each head learns one weight for its own unmixed value, so some heads can specialise in the "
        "present token and others in the past.",
        "The weight is the same for every token.",
        "Heads should diverge in their weights, with a small but consistent benefit for loss.",
    ),
    ("residual", "gate"): Argument(
        "A sigmoid gate decides per token and head how much of the present value to add, so context-free "
        "tokens bypass the memory while ambiguous ones rely on it.",
        "One projection to a scalar per head is added, starting nearly closed.",
        "Token-wise choice should lower perplexity without touching recall.",
    ),
}

ROUTING: Arguments = {
    ("router", "none"): Argument(
        "Adding the paths with equal weights removes the router and any chance of its collapse onto a "
        "single branch.",
        "No token can silence a path that does not help it.",
        "Simpler optimisation may outweigh the lost control; we watch the final loss.",
    ),
    ("router", "softmax"): Argument(
        "A softmax over the paths makes them compete for a fixed budget, so each head settles per "
        "situation on local filters, copying or retrieval.",
        "The zero-sum budget can collapse onto whichever path learns first.",
        "Specialised heads should appear as lower held-out loss compared with plain addition.",
    ),
    ("router", "sigmoid"): Argument(
        "Independent sigmoid gates break the zero-sum trade-off: a local filter and the global memory can "
        "both be fully open for the same token.",
        "The output scale varies with the number of open gates.",
        "Tasks that need local fluency and distant facts at once should improve together.",
    ),
    ("router", "hierarchical"): Argument(
        "Routing in two stages separates the question whether context is needed from the question which "
        "context, so copying no longer competes with each source of context.",
        "Errors of the first stage hide the second from its gradient.",
        "We expect a cleaner division of labour, and lower loss without a drop in recall.",
    ),
    ("router_input", "head"): Argument(
        "Static preferences per head make the mixture a property of the head, cheap and impossible to "
        "overfit to single tokens.",
        "The mixture no longer reacts to what is being read.",
        "If most of the benefit is specialisation of heads, loss stays level with fewer parameters.",
    ),
    ("router_input", "token"): Argument(
        "Letting the token choose its paths gives function words the local filters and names the memory.",
        "The router adds a thin projection of the input.",
        "Word prediction should profit, since the choice follows the kind of token.",
    ),
    ("router_input", "content"): Argument(
        "Showing the router how strong each path's output is lets it favour retrieval exactly when "
        "retrieval has found something.",
        "A feedback from path strength to weights can amplify loud paths.",
        "Recall probes should rise, as confident read-outs are trusted more than empty ones.",
    ),
    ("floor", "none"): Argument(
        "Without floors the router may close a path completely where it only adds noise.",
        "A path closed early gets little gradient and may never recover.",
        "Either lower loss through decisive routing or a dead path will be the finding.",
    ),
    ("floor", "fixed"): Argument(
        "A guaranteed minimum share keeps every path trained, so that slow learners such as the memory "
        "are not shut out by the fast local filters.",
        "Useless paths keep leaking their share into the output.",
        "Long-range tasks should be the winners, with loss at worst unchanged.",
    ),
    ("floor", "learned"): Argument(
        "Floors that each head learns for each path protect early training and can sink towards zero once "
        "a path has proved useless.",
        "They add one scalar per head and path.",
        "We anticipate the protection of fixed floors with a smaller penalty on final loss.",
    ),
    ("floor_percent", "widen"): Argument(
        "Raising the floor from {old} to {new} percent guards weak paths more firmly against collapse.",
        "Less of the mixture remains for the router to decide.",
        "Greater diversity between paths is expected, with perplexity slightly at risk.",
    ),
    ("floor_percent", "narrow"): Argument(
        "Lowering the floor from {old} to {new} percent gives the router freedom for sharper choices.",
        "Protection against early collapse becomes thinner.",
        "Loss should fall if the paths were already healthy.",
    ),
    ("temperature", "fixed"): Argument(
        "Returning to a fixed temperature leaves the sharpness of routing to the scale of its logits, one "
        "knob instead of two.",
        "Heads lose a quick way to become decisive.",
        "No visible change in loss would support the simpler router.",
    ),
    ("temperature", "learned"): Argument(
        "A learned temperature per head tunes how decisive routing is, soft while the paths are immature "
        "and sharper once they differ.",
        "Temperature and logit scale overlap, so its gradient can be weak.",
        "Routing should commit later and better, visible in the last part of the loss curve.",
    ),
    ("entropy_permille", "add"): Argument(
        "An auxiliary loss on routing entropy, of weight {new}, rewards balanced use of the "
        "paths for as long as training lasts.",
        "It pulls against decisive routing even where that is right.",
        "No path should collapse; held-out loss is expected to be equal or better.",
    ),
    ("entropy_permille", "remove"): Argument(
        "Without the entropy loss, formerly of weight {old}, the mixture follows the language objective "
        "alone.",
        "Nothing but the floors, if any, prevents collapse.",
        "Sharper routing and a marginally lower loss are the bet.",
    ),
    ("entropy_permille", "widen"): Argument(
        "Strengthening the entropy loss from {old} to {new} keeps all paths in steady use.",
        "Over-regularised routing approaches a plain average.",
        "Robustness over seeds should increase while the best loss may suffer.",
    ),
    ("entropy_permille", "narrow"): Argument(
        "Weakening the entropy loss from {old} to {new} still discourages collapse but lets "
        "heads specialise.",
        "A fast path may dominate early.",
        "Final loss should be slightly lower than with the stronger penalty.",
    ),
}

OUTPUT: Arguments = {
    ("gate", "none"): Argument(
        "Removing the output gate shortens the path from memory to output and saves its projection.",
        "Irrelevant read-outs can no longer be silenced at the exit.",
        "Loss will probably rise a bit; fewer parameters may make it a fair trade.",
    ),
    ("gate", "silu"): Argument(
        "A SiLU output gate lets the current token amplify or suppress what was retrieved, and its "
        "negative part can even invert it.",
        "The gate starts near zero, which delays the first gradients.",
        "Perplexity should decrease as in gated delta networks; recall should hold.",
    ),
    ("gate", "sigmoid"): Argument(
        "A sigmoid output gate bounds the output between nothing and the full read-out, a calm way to "
        "mute heads that found nothing.",
        "It halves the signal at the start and cannot amplify.",
        "Expect stable training and fewer false retrievals, hence better multiple-choice margins.",
    ),
    ("gate_scope", "head"): Argument(
        "Gating whole heads treats each as one expert to be used or ignored, with hardly any parameters.",
        "Features inside a head cannot be selected one by one.",
        "A result equal to channel gating at lower size would favour this form.",
    ),
    ("gate_scope", "low_rank"): Argument(
        "A low-rank map gates every channel from a few directions of the input, most of the control of a "
        "full gate for a fraction of its weights.",
        "The bottleneck ties the channels to one another.",
        "Loss should land close to a full channel gate.",
    ),
    ("gate_scope", "channel"): Argument(
        "A full gate per channel selects single features of the read-out for each token, the finest "
        "control at the exit of the layer.",
        "It costs a further square projection, about a quarter of the layer.",
        "The extra capacity should show in perplexity, more than size alone explains.",
    ),
    ("out_norm", "head"): Argument(
        "RMS normalisation per head gives each head the same voice in the output projection, whatever "
        "the size of its state.",
        "A head cannot stay quiet merely by finding little.",
        "Steadier gradients and slightly lower loss are anticipated.",
    ),
    ("out_norm", "whole"): Argument(
        "Normalising over all heads together keeps their relative strength, so confident heads speak "
        "louder than empty ones.",
        "A single loud head can drown the others.",
        "Recall should improve where one head finds the answer.",
    ),
    ("out_norm", "none"): Argument(
        "Without output norm the magnitude of the read-out survives as a measure of how well the query "
        "matched.",
        "The scale is left to the projections, so the learning rate matters more.",
        "Calibration could improve at the cost of noisier training.",
    ),
}
