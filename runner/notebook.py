"""`%load_ext runner.notebook` gives `%wake2vec COMMAND …`; a failure is told in a sentence, the next cell works."""

from __future__ import annotations

import codecs
import html
import json
import os
import pty
import shlex
import signal
import subprocess
import tempfile
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.children import python

SECRET, HUB_SECRET = "WAKE2VEC_DRIVE_TOKEN", "HF_TOKEN"
KAGGLE_INPUT = Path("/kaggle/input")
NOT_YET = "nothing has been trained yet; run this cell again after the first steps"


def load_ipython_extension(shell: Any) -> None:
    shell.register_magic_function(wake2vec, "line", "wake2vec")


def wake2vec(line: str) -> None:
    """Run a command of wake2vec-runner; `report` shows its page here, of every job that has begun or of those named."""
    words = shlex.split(line)
    if words[:1] == ["report"] and "--out" not in words:
        show_report(words[1:])
    else:
        run(words)


def run(words: Sequence[str]) -> int:
    """Show what the command says as it says it. An interrupt reaches it once: it saves, and its end is waited for."""
    ours, theirs = pty.openpty() if words[:1] == ["start"] else os.pipe()  # its last line may be drawn anew
    if os.isatty(theirs):
        tty.setraw(theirs)
    environment = {"TERM": "xterm", "JPY_PARENT_PID": "1"} | os.environ
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with subprocess.Popen(
        python("runner", *words), stdout=theirs, stderr=theirs, start_new_session=True, env=environment
    ) as child:
        os.close(theirs)
        said = b"."
        while said:
            try:
                said = os.read(ours, 1 << 16)
                print(decoder.decode(said), end="", flush=True)
            except KeyboardInterrupt:
                child.send_signal(signal.SIGINT)
            except OSError:  # how a terminal says that nobody is left who writes
                break
    os.close(ours)
    return child.returncode


def show_report(names: Sequence[str]) -> None:
    """The page in a frame of its own, so that its styles stay there."""
    from IPython.display import HTML, display

    told = subprocess.run(python("runner", "status", "--json"), capture_output=True, text=True, check=False)
    begun = [job["name"] for job in json.loads(told.stdout)["jobs"] if job["trained"]] if told.stdout else []
    shown = [name for name in begun if not names or name in names]
    if not shown:
        print(told.stderr or NOT_YET)
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        if run(["report", *shown, "--out", str(page)]) == 0:
            text = html.escape(page.read_text("utf-8"))
            display(HTML(f'<iframe srcdoc="{text}" width="100%" height="900" style="border:0"></iframe>'))


def sign_in(store: str, *, with_click: bool = False) -> None:
    """Let the cells below reach `store`: with the secret of this notebook, or with Colab's own sign-in."""
    os.environ["WAKE2VEC_STORE"] = store
    secret = {"drive": SECRET, "hub": HUB_SECRET}.get(store.partition(":")[0])
    with_click = with_click and secret == SECRET
    os.environ.pop(SECRET, None)  # of an earlier run of this cell
    if secret is None:
        print(f"store: {store}")
        return
    try:
        os.environ[secret] = token = _click() if with_click else _secret(secret)
    except Exception as error:  # each platform raises its own kinds, and a cell must not end in a traceback
        print(f"not signed in: {_remedy(error, with_click, secret)}; then run this cell again")
        return
    way = "with a click" if with_click else f"by {token}" if token.startswith("/") else f"by the secret {secret}"
    print(f"store: {store}, signed in {way}")


def _click() -> str:
    from google.colab import auth

    auth.authenticate_user()
    return "colab"


def _secret(name: str) -> str:
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        from kaggle_secrets import UserSecretsClient

        try:
            return str(UserSecretsClient().get_secret(name))
        except Exception:  # a notebook that was pushed has lost its secrets; its datasets it keeps
            found = sorted(KAGGLE_INPUT.glob("*/drive-token.json"))
            if not found or name != SECRET:
                raise
            return str(found[0])
    from google.colab import userdata

    return str(userdata.get(name))


def _remedy(error: Exception, with_click: bool, secret: str) -> str:
    login, text, file = "wake2vec-runner login", "the text of drive-token.json", "drive-token.json"
    if secret == HUB_SECRET:
        login, text, file = "hf auth login", "a token of huggingface.co that may write", ""
    if isinstance(error, ImportError):
        return f"this is neither Colab nor Kaggle; `{login}` signs in here"
    if with_click:
        return "allow it in the window that Colab opens"
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        added = f"add the secret {secret} and tick it for this notebook (Add-ons → Secrets; Internet must be on)"
        return added + (f", or add a private dataset that holds {file}" if file else "")
    if type(error).__name__ == "NotebookAccessError":
        return f"allow this notebook to read {secret} (the key symbol on the left)"
    return f"add {text} as the secret {secret} (the key symbol on the left)"
