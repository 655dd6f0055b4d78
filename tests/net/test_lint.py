# SPDX-License-Identifier: Apache-2.0
"""`heddle policy lint` of a running agent: of what is in force, and of what would be."""

import json

from lib import documents as doc
from lib.documents import policy, rule


def lint(up, *argv, docs=(), check=True):
    result = up.daemon.cli("-o", "json", "policy", "lint", *argv, *(["-f", "-"] if docs else []), input=doc.text(*docs), check=check)
    return result.returncode, json.loads(result.stdout)["items"]


def test_in_force_and_with_a_file(plain):
    up = plain()
    assert lint(up, "--strict") == (0, [])
    up.policy(policy(ingress=[rule("allow", "TCP", 80, 90, name="web"), rule("deny", "TCP", 85, name="not-this")]))
    status, items = lint(up)
    assert status == 0
    wider, shadowed = items
    assert (wider["kind"], wider["severity"], wider["rule"]["name"], wider["because"]["rule"]["name"]) == ("wider", "warning", "web", "not-this")
    assert (shadowed["kind"], shadowed["rule"]["index"], shadowed["because"]["rule"]["index"]) == ("shadowed", 1, 0)
    assert "not-this" in wider["message"] and "web" in shadowed["message"]
    assert lint(up, "--strict", check=False)[0] == 1
    # mended in a file that is not in force yet
    mended = policy(ingress=[rule("deny", "TCP", 85, name="not-this"), rule("allow", "TCP", 80, 90, name="web")])
    assert lint(up, "--strict", docs=[mended]) == (0, [])
    # the Host is a file's: what would be with another one
    status, items = lint(up, docs=[{**up.host_document, "spec": {**up.host_document["spec"], "failsafe": [{"protocol": "TCP", "port": 85}]}}, mended])
    assert [(i["kind"], i["rule"]["name"], i["because"]["rule"]["policy"]) for i in items] == [("shadowed", "not-this", "builtin")]
    assert [i["kind"] for i in lint(up)[1]] == ["wider", "shadowed"]
    result = up.daemon.cli("policy", "lint", "-f", "-", input=doc.text(policy(ingress=[rule("allow", "TCP", 70000)])), check=False)
    assert result.returncode == 1 and "70000" in result.stderr
