"""nanochat's present training step, written as plainly as it is described: what bench_train.py measures ours against.

Whole logits, torch's fused attention, full float32 unless told otherwise, AdamW and Muon parameter by parameter where
nanochat does so and stacked where it stacks; `torch.compile` around the model, as there. Nothing here is shared with
the product but the numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


class Cast(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    d = x.shape[3] // 2
    x1, x2 = x[..., :d], x[..., d:]
    return torch.cat([x1 * cos + x2 * sin, x1 * (-sin) + x2 * cos], 3)


class TwinBlock(nn.Module):
    def __init__(self, C: int, H: int, valued: bool) -> None:
        super().__init__()
        self.H = H
        self.q, self.k, self.v, self.o = (Cast(C, C, bias=False) for _ in range(4))
        self.fc, self.proj = Cast(C, 4 * C, bias=False), Cast(4 * C, C, bias=False)
        self.gate = Cast(12, H, bias=False) if valued else None

    def forward(self, x: Tensor, ve: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, C = x.shape
        h = norm(x)
        q, k, v = (layer(h).view(B, T, self.H, C // self.H) for layer in (self.q, self.k, self.v))
        if ve is not None and self.gate is not None:
            v = v + (3 * torch.sigmoid(self.gate(h[..., :12]))).unsqueeze(-1) * ve.view_as(v)
        q, k = norm(turn(q, cos, sin)) * 1.2, norm(turn(k, cos, sin)) * 1.2
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        x = x + self.o(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.proj(F.relu(self.fc(norm(x))).square())


class Twin(nn.Module):
    def __init__(self, V: int, L: int, C: int, H: int, T: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.L, self.dtype = L, dtype
        self.wte, self.head = nn.Embedding(V, C), Cast(C, V, bias=False)
        self.blocks = nn.ModuleList([TwinBlock(C, H, i % 2 == (L - 1) % 2) for i in range(L)])
        self.ve = nn.ModuleDict({str(i): nn.Embedding(V, C) for i in range(L) if i % 2 == (L - 1) % 2})
        self.smear_gate = Cast(24, 1, bias=False)
        self.resid, self.x0 = nn.Parameter(torch.ones(L)), nn.Parameter(torch.full((L,), 0.1))
        self.smear, self.back = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.full((1,), 0.2))
        inv = 100000 ** (-torch.arange(0, C // H, 2) / (C // H))
        angle = torch.outer(torch.arange(T).float(), inv)[None, :, None]
        self.register_buffer("cos", angle.cos().to(dtype))
        self.register_buffer("sin", angle.sin().to(dtype))

    @torch.no_grad()
    def take(self, state: dict[str, Tensor]) -> None:
        """Weights by nanochat's names; the tables then go to the compute precision, as there."""
        short = {"attn.c_q": "q", "attn.c_k": "k", "attn.c_v": "v", "attn.c_proj": "o", "attn.ve_gate": "gate",
                 "mlp.c_fc": "fc", "mlp.c_proj": "proj"}  # fmt: skip
        own = dict(self.named_parameters())
        plain = {"resid": "resid_lambdas", "x0": "x0_lambdas", "smear": "smear_lambda", "back": "backout_lambda",
                 "wte.weight": "transformer.wte.weight", "head.weight": "lm_head.weight"}  # fmt: skip
        for i in range(self.L):
            plain |= {f"blocks.{i}.{new}.weight": f"transformer.h.{i}.{old}.weight" for old, new in short.items()}
            plain[f"ve.{i}.weight"] = f"value_embeds.{i}.weight"
        for name, p in own.items():
            p.copy_(state[plain.get(name, name)])
        for table in (self.wte, *self.ve.values()):
            table.to(self.dtype)

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        x = norm(self.wte(idx).to(self.dtype))
        gate = self.smear.to(x.dtype) * torch.sigmoid(self.smear_gate(x[:, 1:, :24]))
        x = torch.cat([x[:, :1], x[:, 1:] + gate * x[:, :-1]], 1)
        first, middle = x, x
        for i, block in enumerate(self.blocks):
            x = self.resid[i] * x + self.x0[i] * first
            x = block(x, self.ve[str(i)](idx).to(x.dtype) if str(i) in self.ve else None, self.cos, self.sin)
            middle = x if i == self.L // 2 else middle
        x = norm(x - self.back.to(x.dtype) * middle)
        logits = self.head(x).float()
        logits = 15 * torch.tanh(logits / 15)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)


class TwinOptimizer:
    """AdamW for tables and scalars, the refined Muon for matrices of one shape together."""

    def __init__(self, model: Twin, rates: list[float]) -> None:
        matrices = list(model.blocks.parameters())
        unembedding, embedding, self.matrix, scalar = rates
        width = (model.wte.embedding_dim / 768) ** -0.5
        self.groups = [
            ([model.head.weight], unembedding * width, 0.8, 0.96, 0.01),
            ([model.wte.weight], embedding * width, 0.8, 0.995, 0.001),
            (list(model.ve.parameters()), embedding * width * 0.5, 0.8, 0.995, 0.01),
            ([model.resid], scalar * 0.01, 0.8, 0.95, 0.05),
            ([model.x0], scalar, 0.96, 0.95, 0.0),
            ([model.smear_gate.weight, model.smear, model.back], 0.2, 0.8, 0.95, 0.0),
        ]
        self.stacks = [[p for p in matrices if p.shape == shape] for shape in sorted({p.shape for p in matrices})]
        self.state: dict[int, tuple[Tensor, Tensor]] = {}
        self.t, self.dtype = 0, model.dtype

    @torch.no_grad()
    def step(self) -> None:
        self.t += 1
        for params, *settings in self.groups:
            for p in params:
                self._adamw(p, *settings)
        for stack in self.stacks:
            self._muon(stack, self.matrix)

    def _adamw(self, p: Tensor, lr: float, beta1: float, beta2: float, decay: float) -> None:
        assert p.grad is not None
        m, v = self.state.setdefault(id(p), (torch.zeros_like(p), torch.zeros_like(p)))
        m.lerp_(p.grad, 1 - beta1)
        v.lerp_(p.grad.square(), 1 - beta2)
        p.mul_(1 - lr * decay)
        p.add_(m / (1 - beta1**self.t) / ((v / (1 - beta2**self.t)).sqrt() + 1e-10), alpha=-lr)

    def _muon(self, params: list[Tensor], lr: float) -> None:
        g, p = torch.stack([q.grad for q in params if q.grad is not None]), torch.stack(params)
        rows, cols = g.shape[-2:]
        shape = (len(params), rows, 1) if rows >= cols else (len(params), 1, cols)
        m, second = self.state.setdefault(id(params[0]), (torch.zeros_like(g), g.new_zeros(shape)))
        m.lerp_(g, 0.05)
        X = g.lerp(m, 0.95).to(self.dtype)
        X = X * (X.norm(dim=(-2, -1), keepdim=True) / rows**0.5 / X.norm(dim=-1, keepdim=True).clamp_min(1e-7))
        X = X / (X.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-6)
        for a, b, c in COEFFICIENTS:
            A = X.mT @ X if rows > cols else X @ X.mT
            B = b * A + c * (A @ A)
            X = a * X + (X @ B if rows > cols else B @ X)
        u = (X * (min(rows, cols) ** 0.5 / X.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7))).float()
        moment = u.square().mean(-1 if rows >= cols else -2, keepdim=True)
        second.lerp_(moment, 0.1)
        scaled = u * second.clamp_min(1e-10).rsqrt()
        u = scaled * (u.norm(dim=(-2, -1), keepdim=True) / scaled.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10))
        lr = lr * max(1, rows / cols) ** 0.5
        p.sub_(lr * u + lr * 0.28 * p * (u * p >= 0))
        torch._foreach_copy_(params, list(p.unbind(0)))
