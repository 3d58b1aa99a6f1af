"""The Dockerfile, by hadolint. Nothing builds an image here."""

import re

from dlbench.results.deploy.dockerfile import dockerfile


def test_the_linter_has_nothing_to_say(any_deployment, hadolint):
    assert hadolint(dockerfile(any_deployment)) == ""


def test_the_linter_would(deploy, hadolint):
    assert "DL3007" in hadolint(dockerfile(deploy()).replace("3.12-slim", "latest"))


def test_the_configuration_in_it_is_whole(any_deployment):
    text = dockerfile(any_deployment)
    (found,) = re.findall(r'<<"EOF" /etc/dlbench/serve.toml\n(.*\n)EOF\n', text, re.DOTALL)
    assert found == any_deployment.toml_in_container()
    assert text.startswith("# syntax=docker/dockerfile:1\n")


def test_what_was_measured_is_what_is_installed(deploy):
    text = dockerfile(deploy(device="cuda", settings={"grpc_port": 8001}))
    assert text.count("FROM python:3.12-slim AS") == 2
    assert '"dlbench[grpc]==0.1.0" "onnxruntime-gpu==1.22.0"' in text
    assert '"dlbench[cuda,grpc]==0.1.0" "onnxruntime-gpu==1.22.0"' in text
    assert "\nARG DEVICE=cuda\n" in text
    assert "\nEXPOSE 8000 8001\n" in text
    assert "\nARG DEVICE=cpu\n" in dockerfile(deploy())
