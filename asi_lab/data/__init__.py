"""Text, tokenizers and token shards. Nothing here imports torch.

    corpus.documents -> splits -> tokenizer -> writer -> manifest        (prepare.prepare)
    data directory -> shards.TokenStream, shards.held_out_windows, Tokenizer.load

`corpus` yields documents (`builtin` mines them from installed documentation, cleaned by `prose`),
`prepare` writes one data directory, and `shards` reads its token files in a fixed order.
"""
