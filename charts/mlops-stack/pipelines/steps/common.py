"""What the steps share: where data lies, and what has been done before."""

import csv
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlparse

import boto3
import numpy as np

# Of MLflow's runs and model versions: what they were made of. Whoever makes the same again finds what there is.
CONTENT_HASH = "stoker.dev/content-hash"


class Refused(SystemExit):
    """The step has done its work, and the answer is no: trying again would not help."""

    def __init__(self, why):
        print(f"refused: {why}", file=sys.stderr)
        super().__init__(3)


def store():
    """The S3 store that the environment names."""
    return boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))


def read(uri):
    """The bytes of an s3:// URI or a path."""
    parsed = urlparse(uri)
    if parsed.scheme != "s3":
        return Path(uri).read_bytes()
    return store().get_object(Bucket=parsed.netloc, Key=parsed.path.lstrip("/"))["Body"].read()


def write(uri, content):
    parsed = urlparse(uri)
    if parsed.scheme == "s3":
        store().put_object(Bucket=parsed.netloc, Key=parsed.path.lstrip("/"), Body=content)
    else:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        Path(uri).write_bytes(content)


def table(content):
    """Rows of a CSV file with a header, as dictionaries of text."""
    return list(csv.DictReader(io.StringIO(content.decode())))


def as_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def columns(rows, target):
    """Features as a matrix of numbers, in the file's order, labels, and the features' names."""
    names = [name for name in rows[0] if name != target]
    features = np.array([[float(row[name]) for name in names] for row in rows])
    return features, [row[target] for row in rows], names


def digest(*parts):
    """The same for the same content, in hexadecimal."""
    whole = hashlib.sha256()
    for part in parts:
        part = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        whole.update(f"{len(part)}:".encode() + part)
    return whole.hexdigest()


def result(path, **found):
    """Leaves what the next steps need."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
