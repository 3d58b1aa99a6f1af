"""Certificates of an afternoon, made by openssl."""

import shutil
import subprocess

import pytest

NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(folder, *words):
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificates")
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def certify_itself(folder, extension, name):
    """`name`.pem and `name`.key, signed by nobody else."""
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    openssl(folder, "req", "-x509", *NEW, "-days", "2", *files, "-addext", extension)


def found_authority(folder, name="ca"):
    certify_itself(folder, "keyUsage=critical,keyCertSign", name)


def certify(folder, name, authority="ca"):
    """`name`.pem and `name`.key of localhost, signed by an authority."""
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    openssl(folder, "req", *NEW, *request)
    signed = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial")
    files = ("-in", f"{name}.csr", "-extfile", "names", "-out", f"{name}.pem")
    openssl(folder, "x509", "-req", *signed, "-days", "2", *files)
