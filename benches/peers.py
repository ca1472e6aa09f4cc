"""The servers beside which Lockgate is measured."""

import json
import os
import shutil
from pathlib import Path

from harness import HERE, free_port, nginx, peers

NGINX = """
daemon off; worker_processes {workers}; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream worker {{ server unix:{socket}; keepalive 64; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def start_nginx(processes, folder, workers, socket):
    """nginx as a plain proxy of a Lockgate worker."""
    folder.mkdir(parents=True)
    port = free_port()
    # As root its workers would be `nobody`, who may not open the worker's socket.
    user = "user root;" if os.getuid() == 0 else ""
    text = NGINX.format(workers=workers, folder=folder, socket=socket, port=port, user=user)
    (folder / "nginx.conf").write_text(text)
    child = processes.start(nginx(), "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf", log=folder / "log")
    return f"tcp:{port}", child


def start_mlserver(processes, folder, model, settings, log_name):
    """MLServer with one model; listens on loopback."""
    place = folder / "delay"
    place.mkdir(parents=True)
    port = free_port(3)
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps({**ports, **settings}))
    (place / "model-settings.json").write_text(json.dumps({"name": "delay", **model}))
    # It makes working files in its working folder.
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    child = processes.start(peers() / "mlserver", "start", folder, log=folder / log_name, cwd=folder, env=env)
    return f"tcp:{port}", child


def mlserver_default(processes, folder, release):
    """What MLServer's documentation says for an MLflow model: the runtime mlserver-mlflow, all settings as they come."""
    model = {"implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(release)}}
    return start_mlserver(processes, folder, model, {}, "log")


def mlserver_tuned(processes, folder, release):
    """No worker pool (faster for small models), no access log, no compression, no metrics, and a class of our own around the ONNX session."""
    model = {"implementation": "mlserver_onnx.OnnxModel", "parameters": {"uri": str(Path(release) / "model.onnx")}}
    settings = {"parallel_workers": 0, "debug": False, "gzip_enabled": False, "metrics_endpoint": None}
    return start_mlserver(processes, folder, model, settings, "log")


def without_signature(release, target):
    """A copy of the model whose answers cost MLflow least: no signature, whose check of each column in pandas takes milliseconds, and
    one thread for ONNX Runtime."""
    shutil.copytree(release, target)
    lines, inside = [], False
    for line in (target / "MLmodel").read_text().splitlines():
        inside = line == "signature:" or (inside and line.startswith(" "))
        if line.strip() == "onnx_session_options: null":
            line = "    onnx_session_options: {intra_op_num_threads: 1, inter_op_num_threads: 1}"
        if not inside:
            lines.append(line)
    (target / "MLmodel").write_text("\n".join(lines) + "\n")
    return target


def mlflow_serve(processes, folder, release, workers):
    """`mlflow models serve`, in the environment that it is installed in."""
    folder.mkdir(parents=True)
    port = free_port()
    folder_bin = peers()
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{folder_bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = [folder_bin / "mlflow", "models", "serve", "-m", release, "--env-manager", "local", "-h", "127.0.0.1", "-p", port]
    command += ["-w", workers] if workers > 1 else []
    child = processes.start(*command, log=folder / "log", cwd=folder, env=env)
    return f"tcp:{port}", child
