"""The app as a process: its port, its messages, and who may reach it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from hierlmm.app.serve import open_port
from hierlmm.cli import main
from hierlmm.errors import SpecificationError

pytest.importorskip("shiny")


def test_a_port_in_use_is_refused(capsys):
    with open_port(0) as door:
        port = door.getsockname()[1]
        assert door.getsockname()[0] == "127.0.0.1"
        assert main(["app", "--port", str(port), "--no-browser"]) == 2
        said = capsys.readouterr().err
        assert f"--port {port}" in said and "another program uses it" in said and "hierlmm app --port" in said
    for port in (-1, 65536):
        with pytest.raises(SpecificationError, match="0 to 65535"):
            open_port(port)


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shiny", None)
    assert main(["app", "--no-browser"]) == 2
    assert 'pip install "hierlmm[app]"' in capsys.readouterr().err


@pytest.mark.slow
def test_it_is_served_to_this_machine_and_ends_with_ctrl_c():
    command = [sys.executable, "-m", "hierlmm", "app", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        said = process.stdout.readline()
        address, port = re.search(r"(http://127\.0\.0\.1:(\d+)/)", said).groups()

        def ask(path="", **options):
            return urllib.request.urlopen(urllib.request.Request(address + path, **options), timeout=60)

        with ask("?room=shrinkage&child=3&points=1,2,nan") as answer:
            page = answer.read().decode()
        assert "Shrinkage" in page
        for path, options in (
            ("", {"headers": {"Host": "elsewhere.example"}}),
            ("session/a/upload/b", {"data": b"x" * 10}),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(path, **options)
            assert refused.value.code in (400, 413)
            refused.value.close()
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
        for other in others:
            with pytest.raises(OSError), socket.create_connection((other, int(port)), timeout=5):
                pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, ""), err
        assert "The app has ended." in out
    finally:
        process.kill()
