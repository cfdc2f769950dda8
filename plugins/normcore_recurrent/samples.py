"""Samples that rnn, lstm and gru share."""

from normcore.testing.samples import ErrorSample, Sample


def _with_lengths(rng):
    return rng.uniform(-1, 1, (4, 5, 3)), rng.permutation([5, 1, 3, 5])


def _padded(rng):
    x = rng.uniform(0.1, 1, (4, 5, 3))
    x[1, 2:] = x[2, 4:] = 0
    x[3, 1] = 0  # a step inside a sequence is no end
    return (x,)


def common():
    return (
        Sample("the last state", shape=(3, 4, 5), params={"hidden_size": 6}, low=-1.0, high=1.0),
        Sample(
            "two layers, both directions, all states",
            shape=(2, 3, 4),
            params={"hidden_size": 3, "num_layers": 2, "bidirectional": True, "return_sequences": True},
        ),
        Sample(
            "sequences of several lengths, both directions",
            shapes=((4, 5, 3), (4,)),
            params={"hidden_size": 2, "bidirectional": True},
            make=_with_lengths,
        ),
        Sample(
            "sequences that end in padding",
            shape=(4, 5, 3),
            params={"hidden_size": 2, "padding_value": 0.0, "return_sequences": True},
            make=_padded,
        ),
        Sample(
            "layer_norm",
            shape=(2, 3, 3),
            params={"hidden_size": 5, "normalization": "layer_norm", "return_sequences": True},
        ),
        Sample(
            "batch_norm, several lengths",
            shapes=((4, 5, 3), (4,)),
            params={"hidden_size": 3, "normalization": "batch_norm", "return_sequences": True},
            make=_with_lengths,
        ),
    )


COMMON_ERRORS = (
    ErrorSample("no units", {"hidden_size": 0}, None, "at least 1"),
    ErrorSample("no sequence", {"hidden_size": 2}, (3, 4), "(N, T, C)"),
    ErrorSample("an image", {"hidden_size": 2}, (3, 1, 6, 4), "data.layout: sequences"),
    ErrorSample("no steps", {"hidden_size": 2}, (3, 0, 4), "at least one step"),
    ErrorSample("padding without a value", {"hidden_size": 2, "padding_value": float("nan")}, None, "finite"),
    ErrorSample("unknown normalization", {"hidden_size": 2, "normalization": "group_norm"}, None, "layer_norm"),
    ErrorSample(
        "batch statistics of one", {"hidden_size": 2, "normalization": "batch_norm"}, (1, 3, 4), "at least two",
        training=True,
    ),
)  # fmt: skip
