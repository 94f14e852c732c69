"""The tiny seeded models that folders are made of, and how they are exported."""
import json
import warnings

import onnx
import torch

warnings.filterwarnings("ignore")
V, W, H, D, LAYERS, START, END, STEPS = 48, 16, 2, 8, 2, 1, 2, 8
PROMPTS = [[5, 9, 11], [7], [3, 30, 31, 8, 12]]
NAMES = [f"{i}.{k}" for i in range(LAYERS) for k in ("key", "value")]
BATCH_STEP = {0: "batch", 1: "step"}


class Layer(torch.nn.Module):
    def __init__(self, kv_heads, cross):
        super().__init__()
        self.kv_heads = kv_heads
        self.q, self.k, self.v = (torch.nn.Linear(W, n * D) for n in (H, kv_heads, kv_heads))
        self.out, self.up, self.down = torch.nn.Linear(H * D, W), torch.nn.Linear(W, 2 * W), torch.nn.Linear(2 * W, W)
        self.cross = torch.nn.ModuleList(torch.nn.Linear(W, W) for _ in range(4)) if cross else None

    def split(self, x, heads):
        return x.reshape(x.shape[0], -1, heads, D).transpose(1, 2)

    def attend(self, q, k, v, bias):
        scores = q @ k.transpose(2, 3) / D**0.5 + bias
        y = torch.softmax(scores.float(), -1).to(v.dtype) @ v
        return y.transpose(1, 2).reshape(y.shape[0], -1, H * D)

    def forward(self, x, past, bias_of, states, states_bias):
        q, k, v = self.split(self.q(x), H), self.split(self.k(x), self.kv_heads), self.split(self.v(x), self.kv_heads)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        x = x + self.out(self.attend(q, k, v, bias_of(k, q)))
        if states is not None:
            cq, ck, cv, out = self.cross
            x = x + out(self.attend(self.split(cq(x), H), self.split(ck(states), H), self.split(cv(states), H), states_bias))
        return x + self.down(torch.relu(self.up(x))), (k, v)


class Decoder(torch.nn.Module):
    def __init__(self, kv_heads=H, cross=False, seed=3):
        super().__init__()
        torch.manual_seed(seed)
        self.tokens, self.positions = torch.nn.Embedding(V, W), torch.nn.Embedding(64, W)
        self.layers = torch.nn.ModuleList(Layer(kv_heads, cross) for _ in range(LAYERS))
        self.head = torch.nn.Linear(W, V, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=0.6)
        self.eval()

    def forward(self, ids, positions=None, mask=None, pasts=None, states=None, states_mask=None):
        length = pasts[0][0].shape[2] if pasts is not None else 0
        if positions is None:
            positions = torch.arange(ids.shape[1])[None] + length
        x = self.tokens(ids) + self.positions(positions)

        def bias_of(k, q):
            key, query = torch.arange(k.shape[2])[None], torch.arange(q.shape[2])[:, None] + (k.shape[2] - q.shape[2])
            allowed = (key <= query)[None, None]
            if mask is not None:
                allowed = allowed & (mask[:, None, None, :] != 0)
            return torch.where(allowed, 0.0, -30000.0).to(x.dtype)
        states_bias = 0.0 if states_mask is None else torch.where(states_mask[:, None, None, :] != 0, 0.0, -30000.0).to(x.dtype)
        presents = []
        for i, layer in enumerate(self.layers):
            x, present = layer(x, pasts[i] if pasts is not None else None, bias_of, states, states_bias)
            presents.append(present)
        return self.head(x), presents


class Encoder(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        torch.manual_seed(9)
        self.first = torch.nn.Linear(5, W) if features else torch.nn.Embedding(V, W)
        self.second = torch.nn.Linear(W, W)
        self.eval()

    def forward(self, x, mask=None):
        y = self.first(x)
        return y + torch.tanh(self.second(y))


def greedy(step, prompt, steps=STEPS):
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(step(torch.tensor([ids]))[0, -1].float().argmax()))
        if ids[-1] == END:
            break
    return ids


class Wrapped(torch.nn.Module):
    def __init__(self, run, *modules):
        super().__init__()
        self.run, self.kept = run, torch.nn.ModuleList(modules)

    def forward(self, *inputs):
        return self.run(*inputs)


def export(path, run, modules, inputs, names, outputs, axes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(Wrapped(run, *modules), inputs, str(path), input_names=names, output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
        node.ClearField("doc_string")
    onnx.save(model, path)


def settle(folder, expected, prompts=None, config=None):
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    (folder / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts or [{"input_ids": p} for p in PROMPTS]))
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": STEPS, "eos_token_id": END, "pad_token_id": 0, **(config or {})}) + "\n")


def ids(n=3, batch=2):
    return torch.randint(3, V, (batch, n))


def caches(heads=H, batch=2, past=4, dtype=torch.float32):
    return [torch.randn(batch, heads, past, D, dtype=dtype) for _ in range(2 * LAYERS)]


def pairs(flat):
    return [(flat[2 * i], flat[2 * i + 1]) for i in range(LAYERS)]


def flat(presents):
    return [x for pair in presents for x in pair]
