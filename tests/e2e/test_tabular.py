"""Many fitted models of the newest libraries, served by the release binary, answer as their libraries do.

The models are made anew for each run: GRID_SEED chooses which, and a failure says it.
"""

import json
import math
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

import servers
from servers import ROOT

PYTHON = ROOT / "target/tools/tabular-venv/bin/python"
GRID = ROOT / "tests/tabular"

# Classes that have to be compared, whatever the seed.
LEAST_CLASSES = 100


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    seed = os.environ.get("GRID_SEED", str(random.randrange(1_000_000)))
    command = [PYTHON, "-m", "grid", folder, "--seed", seed, "--wide", "--most", "4"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, cwd=GRID, env=env, capture_output=True, text=True, timeout=230)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-4000:]}"
    print(done.stdout)
    return sorted(path.parent for path in folder.glob("*/case.json")), seed


def test_answers_are_the_libraries(cases):
    folders, seed = cases
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(check, folders))
    classes = {name for name, _, _ in outcomes}
    failures = [failure for _, _, failure in outcomes if failure]
    compared = sum(count for _, count, _ in outcomes)
    print(f"{len(folders)} models of {len(classes)} classes, {compared} answers compared, GRID_SEED={seed}")
    assert not failures, f"GRID_SEED={seed}\n" + "\n".join(failures)
    assert len(classes) >= LEAST_CLASSES, f"only {len(classes)} classes"


def check(folder):
    """The class, how many answers were compared, and what was wrong."""
    case = json.loads((folder / "case.json").read_text())
    compared = 0
    try:
        with servers.stoker("--model_name=m", f"--model_dir={folder}", "--threads=1", "--listen_when_ready") as server:
            for method, answer in case["answers"].items():
                if method == "inverse_transform":
                    continue  # no request asks for it
                is_default = method == ("predict" if "predict" in case["answers"] else "transform")
                for body in requests(case, method, is_default):
                    compare(server, body, method, answer, case)
                    compared += 1
    except AssertionError as error:
        return case["class"], compared, f"{folder.name}: {str(error)[:500]}"
    return case["class"], compared, None


def requests(case, method, is_default):
    """The rows in every form that carries them; V1 asks for no method."""
    rows, answer = case["rows"], case["answers"][method]
    values = answer["values"]
    if "object" in answer["dtype"] and case["class"] == "ColumnTransformer":
        return []  # text that no step asks for: columns that are only passed on are taken for numbers
    outputs = {"outputs": [{"name": method}]}
    if method == "predict_proba" and isinstance(values[0][0], list):
        outputs = {"outputs": [{"name": f"predict_proba_{part}"} for part in range(len(values))]}
    if "text" in rows:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [len(rows["text"])], "data": rows["text"]}
        return [{"inputs": [tensor], **outputs}]
    if "columns" in rows:
        if rows["columns"][0]["name"] is None:
            lists = [list(values) for values in zip(*(each["values"] for each in rows["columns"]))]
            return [{"instances": lists}] if is_default else []
        columns = [column(each["name"], each["values"]) for each in rows["columns"]]
        # Last column first: what counts are names.
        backwards = rows["columns"][::-1]
        names = [each["name"] for each in backwards]
        records = [dict(zip(names, values)) for values in zip(*(each["values"] for each in backwards))]
        bodies = [{"instances": records}] if is_default else []
        return bodies + ([{"inputs": columns, **outputs}] if all(columns) else [])
    if "matrix" not in rows or not rows["matrix"] or not isinstance(rows["matrix"][0], list):
        return []
    flat = [value for row in rows["matrix"] for value in row]
    if any(isinstance(value, (str, bool)) for value in flat):
        return [{"instances": rows["matrix"]}] if is_default else []
    shape = [len(rows["matrix"]), len(rows["matrix"][0])]
    datatype = "FP32" if rows.get("single") else rows.get("integers", "FP64").upper()
    bodies = [{"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": flat}], **outputs}]
    if is_default and datatype in ("FP64", "INT64"):
        bodies.append({"instances": rows["matrix"]})
    return bodies


def column(name, values):
    """A tensor, unless no datatype of V2 holds the values: only text and floating numbers may be missing."""
    kinds = {type(value) for value in values}
    if kinds <= {str, type(None)}:
        datatype = "BYTES"
    elif kinds <= {float, int, type(None)} and (float in kinds or type(None) in kinds):
        datatype = "FP64"
    elif kinds in ({bool}, {int}):
        datatype = {bool: "BOOL", int: "INT64"}[kinds.pop()]
    else:
        return None
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": values}


def compare(server, body, method, expected, case):
    is_v1 = "instances" in body
    path = "/v1/models/m:predict" if is_v1 else "/v2/models/m/infer"
    answer = server.post(path, body)
    assert answer.status == 200, f"{method}: {answer.body.decode()}"
    if is_v1:
        values, datatypes = answer.json()["predictions"], []
    else:
        values = [output["data"] for output in answer.json()["outputs"]]
        datatypes = [output["datatype"] for output in answer.json()["outputs"]]
        shapes = [output["shape"] for output in answer.json()["outputs"]]
        parts = [expected["values"]] if len(shapes) == 1 else expected["values"]
        assert shapes == [shape(part) for part in parts], f"{method}: {shapes}"
    wanted, got = leaves(expected["values"]), leaves(values)
    assert len(got) == len(wanted), f"{method}: {len(got)} values, expected {len(wanted)}"
    greatest = max((abs(value) for value in wanted if isinstance(value, (int, float))), default=0)
    # FP32 is written with the digits that tell it from other FP32.
    tolerance = max(case["tolerance"], 1e-7 if "FP32" in datatypes else 0) * greatest
    for datatype in datatypes:
        assert method == "shap_values" or are_same(datatype, expected["dtype"]), (
            f"{method}: {datatype}, expected {expected['dtype']}"
        )
    if expected["dtype"] == "object" and method == "transform":
        wanted = [str(value) for value in wanted]  # text and numbers are text
    for place, (one, other) in enumerate(zip(got, wanted)):
        same = one == other or (one is None and other in (None, "inf", "-inf"))
        if not same and isinstance(one, (int, float)) and isinstance(other, (int, float)):
            same = math.isclose(one, other, rel_tol=0, abs_tol=tolerance)
        assert same, f"{method}[{place}]: {one}, expected {other} ({'v1' if is_v1 else 'v2'})"


def are_same(datatype, numpy):
    """Whether numpy's name for a type is the protocol's. Lists of answers have none."""
    if datatype == "BYTES":
        return numpy == "object" or numpy.startswith("<U")
    return numpy in ("many", datatype.lower().replace("fp", "float"))


def shape(values):
    return [len(values), *(shape(values[0]) if values else [])] if isinstance(values, list) else []


def leaves(values):
    if not isinstance(values, (list, tuple)):
        return [values]
    return [leaf for value in values for leaf in leaves(value)]
