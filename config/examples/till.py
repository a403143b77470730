#!/usr/bin/env python3
"""A till's side of the contract, with nothing but Python's standard library.

    ./till.py [--url http://127.0.0.1:7360] [--token-file FILE] [--ca-file FILE [--cert-file FILE --key-file FILE]] --outbox FILE

Every document is in the outbox, synced, before it is sent for the first time, and is sent with the same bytes until the agent
gives an answer that counts. What was answered stands in FILE.answers. A till that lost its power goes on where it was: start
it again with the same outbox. Exit 1: something was refused, a person has to look.

On the LAN the agent speaks https: --ca-file names the certificates that sign its own, and the till is known by its token or by a
certificate of its own.
"""

import argparse
import http.client
import json
import os
import pathlib
import ssl
import sys
import time
import urllib.error
import urllib.request

ANSWER_WITHIN_S = 30
PAUSE_S = 1
PAUSE_S_MAX = 60

HERE = pathlib.Path(__file__).resolve().parent
DAY = [
    ("/v1/stock-movements", "count.json"),
    ("/v1/transactions", "sale.json"),
    ("/v1/transactions", "return.json"),
    ("/v1/fulfillment-updates", "fulfillment.json"),
]


class Lines:
    """A file of JSON lines that is synced with every line; a line that a power cut left half is taken away."""

    def __init__(self, path):
        self.file = open(path, "a+b")
        self.file.seek(0)
        kept = self.file.read()
        whole = kept[: kept.rfind(b"\n") + 1]
        self.file.truncate(len(whole))
        self.lines = [json.loads(line) for line in whole.splitlines()]
        self.sync()
        directory = os.open(pathlib.Path(path).resolve().parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def append(self, line):
        self.file.write(json.dumps(line).encode() + b"\n")
        self.sync()
        self.lines.append(line)

    def sync(self):
        self.file.flush()
        os.fsync(self.file.fileno())


class Agent:
    def __init__(self, url, token, tls):
        self.url = url.rstrip("/")
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        # A till's agent is near; what the environment says of proxies is not for it.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))

    def call(self, path, body=None):
        """Status, seconds of Retry-After or None, body; status 0 where there was no answer."""
        request = urllib.request.Request(self.url + path, data=body, headers=self.headers)
        try:
            with self.opener.open(request, timeout=ANSWER_WITHIN_S) as answer:
                return answer.status, None, answer.read()
        except urllib.error.HTTPError as error:
            after = error.headers.get("Retry-After", "")
            return error.code, int(after) if after.isdecimal() else None, error.read()
        except (OSError, http.client.HTTPException):
            return 0, None, b""

    def post(self, path, body):
        """The same bytes until there is an answer that counts."""
        pause = PAUSE_S
        while True:
            status, after, answer = self.call(path, body)
            if status != 0 and status != 429 and status < 500:
                return status, answer
            # No answer: nobody knows. 429, 503, 507 and the like: not appended. Both want the same again.
            time.sleep(min(pause if after is None else after, PAUSE_S_MAX))
            pause = min(pause * 2, PAUSE_S_MAX)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--url", default="http://127.0.0.1:7360")
    arguments.add_argument("--token-file")
    arguments.add_argument("--ca-file")
    arguments.add_argument("--cert-file")
    arguments.add_argument("--key-file")
    arguments.add_argument("--outbox", required=True)
    arguments = arguments.parse_args()
    token = pathlib.Path(arguments.token_file).read_text().strip() if arguments.token_file else None
    tls = ssl.create_default_context(cafile=arguments.ca_file)
    if arguments.cert_file:
        tls.load_cert_chain(arguments.cert_file, arguments.key_file)
    agent = Agent(arguments.url, token, tls)
    outbox, answers = Lines(arguments.outbox), Lines(arguments.outbox + ".answers")

    # What a till sells goes into the outbox first; here that is a short day, once.
    for path, name in DAY[len(outbox.lines):]:
        outbox.append({"path": path, "body": (HERE / name).read_text()})

    for document in outbox.lines[len(answers.lines):]:
        status, answer = agent.post(document["path"], document["body"].encode())
        answers.append({"status": status, "answer": json.loads(answer)})
        print(document["path"], status)

    for path in ("/v1/receipts/3/2026-11-23/1187", "/v1/stock/85123A"):
        status, _, answer = agent.call(path)
        if status != 200:
            sys.exit(f"{path}: {status}")
        print(answer.decode())
    refused = [answer for answer in answers.lines if answer["status"] not in (200, 201)]
    if refused:
        sys.exit(f"A person has to look at: {json.dumps(refused)}")


main()
