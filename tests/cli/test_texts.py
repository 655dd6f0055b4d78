# SPDX-License-Identifier: Apache-2.0
"""Completion scripts and man pages say what the program does. (docs/reference.md: tools/check-docs.)"""
import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from conftest import TOP

PAGES = ["heddle.1", "heddle-cni.8", "heddled.8", "heddle.yaml.5"]


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as file:
        return file.read()


def verbs(lonely):
    return re.findall(r"^  (\w+) ", re.search(r"Verbs:\n(.*?)\n\n", lonely("--help")[0], re.S)[1], re.M)


@pytest.mark.parametrize("shell, file", [("bash", "heddle.bash"), ("zsh", "_heddle")])
def test_completion_is_what_heddle_prints(lonely, shell, file):
    assert lonely("completion", shell)[0] == read("tools", "completion", file), f"heddle completion {shell} >tools/completion/{file}"


def complete(*words, path=os.environ["PATH"]):
    script = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _heddle; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script, os.path.join(TOP, "tools/completion/heddle.bash"), *words], capture_output=True, text=True,
                          env={**os.environ, "PATH": path})
    assert done.stderr == "", done.stderr
    return done.stdout.split()


def test_bash_completes(lonely):
    assert set(complete("heddle", "")) >= set(verbs(lonely))
    assert complete("heddle", "st") == ["status"]
    assert complete("heddle", "-o", "j") == ["json"]
    assert complete("heddle", "-o", "json", "flows", "--w") == ["--watch"]
    assert complete("heddle", "policy", "") == ["lint"]
    assert complete("heddle", "policy", "lint", "--s") == ["--strict", "--socket"]
    assert complete("heddle", "get", "hostp") == ["hostpolicy"]
    assert complete("heddle", "delete", "networkp") == ["networkpolicy"]
    assert complete("heddle", "get", "-n", "def") == ["default"]
    assert complete("heddle", "explain", "--protocol", "sc") == ["sctp"]
    assert complete("heddle", "apply", "-f", os.path.join(TOP, "READ")) == [os.path.join(TOP, "README.md")]
    assert "lo" in complete("heddle", "explain", "--uplink", "")
    assert complete("heddle", "wait", "--timeout", "") == []


def fake_heddle(folder):
    """Knows some objects, and writes down what it was asked."""
    said, heddle = folder / "said", folder / "heddle"
    heddle.write_text(f'''#!/bin/sh
echo "$*" >>{said}
case $4 in
port) printf 'KIND  NAMESPACE  NAME  ORIGIN\\nPort  shop  web-1  applied\\nPort  shop  web-2  applied\\n' ;;
*) printf 'KIND  NAME  ORIGIN\\nHost  web-h  applied\\n' ;;
esac
''')
    heddle.chmod(0o755)
    return said


def test_bash_completes_names(tmp_path):
    """Those of the namespace given, or of default; in whichever column they are."""
    said = fake_heddle(tmp_path)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert complete("heddle", "get", "port", "web", path=path) == ["web-1", "web-2"]
    assert complete("heddle", "delete", "-n", "shop", "port", "web-1", path=path) == ["web-1"]
    assert complete("heddle", "get", "host", "", path=path) == ["web-h"]
    assert said.read_text() == "get -n default port\nget -n shop port\nget -n default host\n"


# What zsh offers stands in HITS, but for what its own functions ask it about; ^G ends it.
ZSHRC = r"""
unsetopt beep
fpath=(%s $fpath)
autoload -U compinit; compinit -u -d $ZDOTDIR/dump
compadd() {
	if [[ -z ${(M)@:#-[OAD]*} ]]; then
		local -a __hits
		builtin compadd -O __hits "$@"
		print -rl -- $__hits >>$HITS
	fi
	builtin compadd "$@"
}
bindkey '\t' complete-word
finish() { kill -KILL $$ }
zle -N finish; bindkey '^G' finish
PS1='ready>'
"""


@pytest.fixture
def zsh(tmp_path):
    """complete(line): what zsh offers for the last word of the line, sorted."""
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    (tmp_path / ".zshrc").write_text(ZSHRC % os.path.join(TOP, "tools/completion"))

    def complete_line(line):
        hits = tmp_path / "hits"
        hits.write_text("")
        env = {**os.environ, "ZDOTDIR": str(tmp_path), "HITS": str(hits), "TERM": "dumb", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        ours, theirs = pty.openpty()
        shell = subprocess.Popen(["zsh", "-d", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True, cwd=TOP)
        os.close(theirs)
        said, keys = b"", f"{line}\t\x07".encode()
        deadline = time.monotonic() + 20
        try:
            while time.monotonic() < deadline and select.select([ours], [], [], deadline - time.monotonic())[0]:
                said += os.read(ours, 4096)
                if keys and b"ready>" in said:
                    os.write(ours, keys)
                    keys = b""
        except OSError:  # it has gone
            pass
        finally:
            os.close(ours)
            shell.kill()
            shell.wait()
        assert not keys, said
        return sorted(set(hits.read_text().split()))

    return complete_line


def test_zsh_completes(zsh, lonely):
    assert set(zsh("heddle ")) >= set(verbs(lonely))
    assert zsh("heddle st") == ["status"]
    assert zsh("heddle -o j") == ["json"]
    assert zsh("heddle -o json flows --w") == ["--watch"]
    assert zsh("heddle policy ") == ["lint"]
    assert zsh("heddle policy lint --s") == ["--socket", "--strict"]
    assert zsh("heddle get hostp") == ["hostpolicy"]
    assert zsh("heddle delete networkp") == ["networkpolicy"]
    assert zsh("heddle explain --protocol sc") == ["sctp"]
    assert zsh("heddle apply -f READ") == ["README.md"]
    assert "lo" in zsh("heddle explain --uplink ")
    assert zsh("heddle wait --timeout ") == []


def test_zsh_completes_names(zsh, tmp_path):
    said = fake_heddle(tmp_path)
    assert zsh("heddle get port web") == ["web-1", "web-2"]
    assert zsh("heddle delete -n shop port web-1") == ["web-1"]
    assert zsh("heddle get host ") == ["web-h"]
    assert said.read_text() == "get -n default port\nget -n shop port\nget -n default host\n"


def test_man_page_has_every_verb_and_option(lonely):
    page = read("tools", "man", "heddle.1")
    for verb in verbs(lonely):
        assert f".It Cm {verb}" in page, verb
        for option in re.findall(r"--([\w-]+)", lonely(verb, "--help")[0]):
            if option != "filename":  # -f in the page
                assert f"Fl -{option}" in page, (verb, option)


@pytest.mark.parametrize("page", PAGES)
def test_man_pages_are_clean(page):
    path = os.path.join(TOP, "tools/man", page)
    linter = ["mandoc", "-T", "lint", "-W", "warning"] if shutil.which("mandoc") else ["groff", "-mdoc", "-ww", "-z"]
    if not shutil.which(linter[0]):
        pytest.skip("neither mandoc nor groff is installed")
    done = subprocess.run([*linter, path], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


HEDDLED = os.environ.get("HEDDLED_BIN") or os.path.join(TOP, os.environ.get("BUILD", "build"), "heddled")


def examples():
    """The documents that each page shows; a page's are one configuration, but for the guide's sections about other hosts."""
    guide = re.split(r"^(?=## )", read("docs", "guide.md"), flags=re.M)
    hosts = [section for section in guide if section.splitlines()[0].endswith("Two hosts")]
    clusters = [section for section in guide if section.splitlines()[0].endswith("A cluster")]
    texts = {"README.md": read("README.md"), "docs/guide.md": "".join(section for section in guide if section not in hosts + clusters),
             "docs/guide.md, two hosts": "".join(hosts), "docs/guide.md, a cluster": "".join(clusters)}
    pages = {name: "---\n".join(re.findall(r"```yaml\n(.*?)```", text, re.S)) for name, text in texts.items()}
    page = read("tools", "man", "heddle.yaml.5")
    pages["heddle.yaml.5"] = page[page.index(".Sh EXAMPLES"):].split(".Bd -literal\n")[1].split(".Ed")[0]
    return pages


def check(path):
    done = subprocess.run([HEDDLED, "--check", "--config", str(path)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("page, kind", [("README.md", "HostPolicy"), ("docs/guide.md", "HostPolicy"), ("docs/guide.md, two hosts", "Peer"),
                                        ("docs/guide.md, a cluster", "Network"),
                                        ("heddle.yaml.5", "HostPolicy")])
def test_documents_of_the_docs_are_good(page, kind, tmp_path):
    path = tmp_path / "documents.yaml"
    path.write_text(examples()[page])
    assert f"kind: {kind}" in path.read_text()
    assert check(path) == (0, "")


def test_the_documents_of_the_manifest(tmp_path):
    """What cni/kubernetes.yaml gives each node, with its address filled in."""
    text = read("cni", "kubernetes.yaml")
    lines = text[text.index("  node.yaml: |") :].splitlines()[1:]
    indented = [line[4:] for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("    "))]]
    path = tmp_path / "node.yaml"
    path.write_text("\n".join(indented).replace("NODE_IP", "192.0.2.1") + "\n")
    assert "kubernetes: {network: pods}" in path.read_text()
    assert check(path) == (0, "")


def test_the_mistake_in_the_guide(tmp_path):
    """The guide quotes what --check says about its own policy with a wrong port."""
    guide = read("docs", "guide.md")
    quoted = re.search(r"/etc/heddle/(policy\.yaml:.*)\n", guide)[1]
    policy = re.findall(r"```yaml\n(.*?)```", guide, re.S)[1]
    (tmp_path / "policy.yaml").write_text(policy.replace("port: 80}", "port: 80000}"))
    status, output = check(tmp_path)
    assert status == 1 and quoted in output
