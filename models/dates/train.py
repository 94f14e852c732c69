#!/usr/bin/env python3
"""Trains the model of this folder (minutes on two cores) and writes weights.pt, report.json and heldout.tsv.

    python train.py [--steps N]
"""

import argparse
import json
import pathlib
import random
import time

import torch

from model import END, PAD, START, DateModel, encode
from spellings import samples, split

HERE = pathlib.Path(__file__).parent
SEED = 20240303


def batch(pairs):
    def padded(rows):
        width = max(map(len, rows))
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])

    source = padded([encode(text) for text, _ in pairs])
    target = padded([[START] + encode(iso) for _, iso in pairs])
    return source, target


@torch.no_grad()
def accuracy(model, pairs):
    """Share of pairs whose greedy output is exactly the ISO date."""
    model.eval()
    right = 0
    for first in range(0, len(pairs), 500):
        part = pairs[first:first + 500]
        source, target = batch(part)
        output = torch.full((len(part), 1), START)
        for _ in range(target.shape[1] - 1):
            output = torch.cat([output, model(source, output)[:, -1].argmax(-1, keepdim=True)], 1)
        right += (output == target).all(1).sum().item()
    model.train()
    return right / len(pairs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=192)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    train, held_out = split()
    model = DateModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, arguments.steps, pct_start=0.1)
    start = time.time()
    for step in range(arguments.steps):
        source, target = batch(samples(rng, train, arguments.batch))
        logits = model(source, target[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 249:
            print(f"step {step + 1}  loss {loss.item():.4f}  {time.time() - start:.0f} s", flush=True)
    torch.save(model.state_dict(), HERE / "weights.pt")
    judge = random.Random(SEED + 1)
    unseen = samples(judge, held_out, 5000)
    report = {
        "seed": SEED,
        "steps": arguments.steps,
        "spellings_trained": len({key for key, _ in train}),
        "spellings_held_out": len(held_out),
        "held_out_samples": len(unseen),
        "held_out_exact": accuracy(model, unseen),
        "trained_spellings_exact": accuracy(model, samples(judge, train, 2000)),
    }
    print(json.dumps(report))
    (HERE / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [f"{text}\t{iso}\n" for text, iso in unseen[:300]]
    (HERE / "heldout.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main()
