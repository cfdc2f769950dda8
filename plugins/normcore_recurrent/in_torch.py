"""The recurrent ops in PyTorch: by its modules, and with layer_norm inside, which those lack, by a loop over the steps."""


def module(op, torch, x, lengths, arrays):
    """The output for x (N, T, C), a torch tensor, of lengths (N,) or None; arrays: the parameters by name."""
    made = op.torch_module(torch)(
        x.shape[2], op.hidden_size, op.num_layers, batch_first=True, bidirectional=op.bidirectional,
        device=x.device, dtype=x.dtype, **op.torch_options(),
    )  # fmt: skip
    given = x
    if lengths is not None:
        pack = torch.nn.utils.rnn.pack_padded_sequence
        given = pack(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    y, last = torch.func.functional_call(made, arrays, (given,))
    if not op.return_sequences:
        last = last[0] if isinstance(last, tuple) else last
        return torch.cat(tuple(last[-2 if op.bidirectional else -1 :]), -1)
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
    return y


def layer_normalized(op, torch, x, arrays):
    """The output for x (N, T, C), a torch tensor; arrays: the parameters by name."""
    ends = []
    for layer in range(op.num_layers):
        ways = []
        for way in range(2 if op.bidirectional else 1):
            suffix = f"l{layer}" + "_reverse" * way
            own = {k.removesuffix(f"_{suffix}"): v for k, v in arrays.items() if k.endswith(f"_{suffix}")}
            ways.append(_direction(op, torch, x, own, way))
        x = torch.cat([states for states, _ in ways], 2)
        ends = [last for _, last in ways]
    return x if op.return_sequences else torch.cat(ends, 1)


def _direction(op, torch, x, own, backwards):
    """All states (N, T, H) and the last one, of one layer in one direction."""
    functional = torch.nn.functional

    def norm(side, values):
        split = next(split for name, _, split in op.sides if name == side)
        parts = [
            functional.layer_norm(part, (part.shape[1],), eps=op.eps)
            for part in (values[:, :split], values[:, split:])
            if part.shape[1]
        ]
        return own[f"gamma_{side}"] * torch.cat(parts, 1) + own.get(f"beta_{side}", 0.0)

    h = c = x.new_zeros(x.shape[0], op.hidden_size)
    states = []
    for step in range(x.shape[1])[:: -1 if backwards else 1]:
        ax, ah = functional.linear(x[:, step], own["weight_ih"]), functional.linear(h, own["weight_hh"])
        if op.joint:
            ax, ah = torch.zeros_like(ah), norm("hh", ax + ah)
        else:
            ax, ah = norm("ih", ax), norm("hh", ah)
        h, c = op.cell_in_torch(torch, ax + own["bias_ih"], ah + own["bias_hh"], h, c, norm)
        states.append(h)
    return torch.stack(states[:: -1 if backwards else 1], 1), h
