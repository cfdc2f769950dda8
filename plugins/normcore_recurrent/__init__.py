"""Recurrent layers, one file per op."""

from normcore import hookimpl


@hookimpl
def normcore_ops():
    from normcore_recurrent.gru import Gru
    from normcore_recurrent.lstm import Lstm
    from normcore_recurrent.rnn import Rnn

    return [Gru, Lstm, Rnn]
