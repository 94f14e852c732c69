"""What a model computes once optimized, whatever its values are called and in whatever order its nodes stand."""
import collections
import hashlib
import re
import subprocess

VALUE = r'%(?:"[^"]*"|[^\s:,(){}]+)'
NODE = re.compile(rf"^  ((?:(?:{VALUE}|_): [^=]*?(?:, )?|_(?:, )?)+) = (\w+)\((.*?)\)(.*)$")


def digest(*parts):
    return hashlib.sha1("\0".join(parts).encode()).hexdigest()[:16]


def structure(weft, model):
    """(how often each computation occurs, what each output is): equal for equal graphs."""
    lines = subprocess.run([weft, "dump", model, "--full"], capture_output=True, text=True, check=True).stdout.splitlines()
    known, computations = {}, collections.Counter()
    outputs = {}
    merged = []
    for line in lines:  # subgraphs belong to their node
        if line.startswith("    ") or line.startswith("  }"):
            merged[-1] += " " + line.strip()
        else:
            merged.append(line)
    for line in merged:
        line = re.sub(r"  # .*", "", line)
        line = re.sub(r"(, )?stash_type = 1", "", line)  # the default: said or not, it means the same
        if line.startswith("graph"):
            for name in re.findall(rf"({VALUE}): ", line.split(" -> ")[0]):
                known[name] = name
            outputs = dict(re.findall(rf'("[^"]*"|[^\s,(]+) = ({VALUE})', line.split(" -> ")[1]))
        elif line.startswith("  const "):
            name, rest = line[8:].split(" ", 1)
            known[name.rstrip(":")] = digest(rest)
        elif match := NODE.match(line):
            made, op, inputs, rest = match.groups()
            given = [known.get(i.strip(), i.strip()) for i in inputs.split(",")]
            inside = re.sub(VALUE, lambda m: known.get(m.group(0), "%"), rest)
            node = digest(op, *given, re.sub(r": \S+\[[^\]]*\]", "", inside))
            computations[op, node] += 1
            for index, name in enumerate(re.findall(rf"({VALUE}): |_", made)):
                known[name] = f"{node}.{index}"
    return computations, {name: known[value] for name, value in outputs.items()}


def difference(a, b):
    """Empty when equal; else which operators only one of the two has."""
    if a == b:
        return ""
    count = lambda c: collections.Counter(op for (op, _), n in c.items() for _ in range(n))
    more, fewer = count(a[0] - b[0]), count(b[0] - a[0])
    return f"only before: {dict(more)}; only after: {dict(fewer)}; outputs equal: {a[1] == b[1]}"
