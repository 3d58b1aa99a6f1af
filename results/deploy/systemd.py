"""A systemd unit of a deployment, for a machine without containers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlbench.results.deploy.deployment import comment
from dlbench.results.printable import word

if TYPE_CHECKING:
    from dlbench.results.deploy.deployment import Deployment

PROGRAM = "/opt/dlbench/bin/dlbench"
MODELS = "/srv/dlbench"
# Beside its connections a proxy has sockets to its workers, logs and libraries open.
OTHER_FILES = 1024


def unit(deployment: Deployment) -> str:
    """The whole file; the knobs are in the TOML file that its first lines say how to write."""
    config, model = f"/etc/dlbench/{deployment.label}.toml", f"{MODELS}/{deployment.model}"
    head = comment(
        deployment.provenance,
        deployment.margins,
        [
            "As root, in the folder of the study and this file:",
            "  python3 -m venv /opt/dlbench",
            f"  /opt/dlbench/bin/pip install '{deployment.package()}'    # or the folder of its source",
            f"  install -D -m 644 -t {MODELS} {word(str(deployment.path))}*",
            f"  mkdir -p /etc/dlbench && {deployment.export('toml')} {config}",
            f"  install -m 644 {deployment.label}.service /etc/systemd/system/",
            f"  systemctl daemon-reload && systemctl enable --now {deployment.label}",
            f"It listens on {deployment.settings.host}; host and token_file are set with --config.",
        ],
    )
    return f"""\
{head}[Unit]
Description=dlbench proxy for {_described(deployment.name)}
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart={PROGRAM} serve "{_escaped(model)}" "--name={_escaped(deployment.name)}" --config {config}
# The front answers what it has accepted and ends its workers itself.
KillMode=mixed
TimeoutStopSec={deployment.stop_s}
Restart=on-failure
RestartSec=1
LimitNOFILE={deployment.settings.max_connections + OTHER_FILES}
{_limits(deployment)}DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def _limits(deployment: Deployment) -> str:
    """What was measured: systemd limits, it reserves nothing."""
    cpus, memory = deployment.cpu_limit, deployment.memory_mib
    if cpus is None or memory is None:
        return ""
    return f"CPUQuota={math.ceil(cpus * 100)}%\nMemoryMax={memory}M\n"


def _described(text: str) -> str:
    r"""As plain text in a unit, where % still is a specifier, and \\ at the end goes on."""
    return text.replace("%", "%%").replace("\\", "\\\\").strip()


def _escaped(text: str) -> str:
    r"""As within quotes of a command line in a unit: % and $ are doubled, quotes and \ escaped."""
    doubled = text.replace("%", "%%").replace("$", "$$")
    return doubled.replace("\\", "\\\\").replace('"', '\\"')
