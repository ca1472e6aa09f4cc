"""Sends the holdout's cases to a gateway, over and over:  python traffic.py http://127.0.0.1:8443 --rps 100 --seconds 60

Every request is a visit of its own, so a rollout that watches visits learns from each.
"""

import argparse
import http.client
import json
import time
from urllib.parse import urlsplit

import pyarrow.parquet as pq

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("url")
parser.add_argument("--rps", type=float, default=100.0)
parser.add_argument("--seconds", type=float, default=60.0)
args = parser.parse_args()

table = pq.read_table("data/holdout.parquet").drop_columns(["malignant", "case_id"])
rows = [list(row.values()) for row in table.to_pylist()]
address = urlsplit(args.url)
connection = http.client.HTTPConnection(address.hostname, address.port or 80, timeout=5)
start, good, bad = time.monotonic(), 0, 0
run = int(time.time())
for number in range(int(args.rps * args.seconds)):
    time.sleep(max(0.0, start + number / args.rps - time.monotonic()))
    row = rows[number % len(rows)]
    body = {"inputs": [{"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": row}]}
    headers = {"Content-Type": "application/json", "X-Case-Id": f"visit-{run}-{number}"}
    try:
        connection.request("POST", f"{address.path.rstrip('/')}/v2/models/tumour/infer", json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        fine = answer.status == 200 and 0.0 <= json.loads(content)["outputs"][0]["data"][0] <= 1.0
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        fine = False
        connection.close()
    good, bad = good + fine, bad + (not fine)
print(f"{good} good and {bad} bad answers in {time.monotonic() - start:.1f} s")
raise SystemExit(bad > 0)
