"""Is this data what we think it is? Checks a table against its schema, and splits it: always the same way.

The schema is JSON: {"target": "species", "classes": [...], "columns": [{"name": "petal length", "min": 0, "max": 10}],
"min_rows": 100}; columns come in their order, the target last.
Leaves {"data": the digest, "train": URI, "holdout": URI}.
"""

import argparse
import hashlib
import json
from collections import Counter

from common import Refused, as_csv, digest, read, result, table, write


def problems(rows, schema):
    """What is wrong with the table, each with how often and where first."""
    if len(rows) < schema["min_rows"]:
        yield f"{len(rows)} rows, and at least {schema['min_rows']} are needed"
    expected = [*(column["name"] for column in schema["columns"]), schema["target"]]
    if rows and list(rows[0]) != expected:
        yield f"columns are {list(rows[0])}, expected {expected}"
        return
    for column in schema["columns"]:
        wrong = [number for number, row in enumerate(rows, 2) if not is_within(row[column["name"]], column)]
        if wrong:
            what = f"{len(wrong)} values are no numbers from {column['min']} to {column['max']}"
            yield f"{column['name']}: {what}, the first in line {wrong[0]}"
    counts = Counter(row[schema["target"]] for row in rows)
    if unknown := sorted(set(counts) - set(schema["classes"])):
        yield f"{schema['target']}: unknown classes {unknown}"
    for missing in [each for each in schema["classes"] if counts[each] < len(rows) * schema.get("min_class_part", 0.01)]:
        yield f"{schema['target']}: hardly any of class {missing} ({counts[missing]})"


def is_within(text, column):
    try:
        return column["min"] <= float(text) <= column["max"]
    except ValueError:
        return False


def is_held_out(row, part):
    """By what the row says, so that more data does not move rows from one side to the other."""
    number = int.from_bytes(hashlib.sha256(json.dumps(row).encode()).digest()[:8])
    return number < part * 2**64


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="s3:// URI or path of a CSV file")
    parser.add_argument("--schema", required=True, help="JSON")
    parser.add_argument("--holdout-part", type=float, default=0.25)
    parser.add_argument("--to", required=True, help="s3:// URI or path below which the parts go")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    content, schema = read(args.data), json.loads(args.schema)
    rows = table(content)
    if found := list(problems(rows, schema)):
        raise Refused(f"{args.data}: " + "; ".join(found))
    parts = {"train": [], "holdout": []}
    for row in rows:
        parts["holdout" if is_held_out(row, args.holdout_part) else "train"].append(row)
    data = digest(content, schema, args.holdout_part)
    places = {name: f"{args.to}/{data[:16]}/{name}.csv" for name in parts}
    for name, place in places.items():
        write(place, as_csv(parts[name]))
    result(args.out, data=data, **places)


if __name__ == "__main__":
    main()
