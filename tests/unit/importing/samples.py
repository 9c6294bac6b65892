"""What the tests of the import read: containers as `docker inspect` shows them, and files of other tools."""

from __future__ import annotations

import json
from typing import Any

COMMIT = "a09a35458c702b33eeacc393d103063234e8bc28"
TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWx"


def container(name: str, args: list[str], **more: Any) -> dict[str, Any]:
    """One vLLM container, started by `docker run`, with what a test changes of it."""
    port = more.pop("port", 8000)
    found: dict[str, Any] = {
        "Id": f"{name:0<64}",
        "Name": f"/{name}",
        "Path": "vllm",
        "Args": ["serve", *args],
        "Image": "sha256:aa",
        "State": {"Status": "running"},
        "Config": {"Image": "vllm/vllm-openai:v0.32.0", "Env": ["PATH=/usr/bin"], "Labels": {}},
        "HostConfig": {
            "NetworkMode": "bridge",
            "DeviceRequests": [
                {"Driver": "", "Count": 0, "DeviceIDs": ["0"], "Capabilities": [["gpu"]], "Options": {}}
            ],
            "RestartPolicy": {"Name": "always"},
            "ShmSize": 67108864,
            "Memory": 0,
            "NanoCpus": 0,
        },
        "Mounts": [{"Type": "bind", "Source": "/srv/hf", "Destination": "/root/.cache/huggingface"}],
        "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}},
    }
    for key, value in more.items():
        found[key] = {**found[key], **value} if isinstance(value, dict) else value
    return found


def inspected(*containers: dict[str, Any]) -> str:
    """As the command prints them."""
    return json.dumps(containers, indent=4)


TGI = {
    **container("tgi-old", []),
    "Path": "/tgi-entrypoint.sh",
    "Args": ["--model-id", "/data/llama", "--num-shard", "2", "--quantize", "awq"],
    "Config": {
        "Image": "ghcr.io/huggingface/text-generation-inference:3.3.7",
        "Env": [f"HF_TOKEN={TOKEN}", "PORT=80", "MAX_TOTAL_TOKENS=4096"],
        "Labels": {},
    },
    "HostConfig": {
        "NetworkMode": "bridge",
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=2", "nvidia.com/gpu=3"]}],
        "IpcMode": "host",
        "Privileged": True,
        "RestartPolicy": {"Name": "no"},
        "ShmSize": 4294967296,
        "Memory": 68719476736,
    },
    "Mounts": [{"Source": "/srv/models", "Destination": "/data"}],
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8081"}]}},
}

COMPOSE = f"""
services:
  chat:
    image: vllm/vllm-openai:v0.32.0
    command: >
      --model Qwen/Qwen2.5-7B-Instruct --revision {COMMIT}
      --served-model-name chat default --max-model-len ${{LENGTH:-8192}} --enforce-eager
    environment:
      HF_TOKEN: {TOKEN}
      VLLM_LOGGING_LEVEL: WARNING
      HTTPS_PROXY: http://user:secretpass@proxy:3128
    ports: ["8000:8000"]
    shm_size: 16gb
    volumes: ["./hf:/root/.cache/huggingface"]
    deploy:
      replicas: 2
      resources:
        reservations:
          devices: [{{driver: nvidia, count: 1, capabilities: [gpu]}}]
  small:
    image: vllm/vllm-openai:v0.32.0
    command: ["--model", "org/small", "--kv-transfer-config", '{{"kv_role": "kv_both"}}']
    gpus: all
  web:
    image: ghcr.io/open-webui/open-webui
  other:
    image: lmsysorg/sglang:latest
    command: python3 -m sglang.launch_server --model-path org/x
"""

LITELLM = """
model_list:
  - model_name: chat
    litellm_params:
      model: hosted_vllm/Qwen/Qwen2.5-7B-Instruct
      api_base: http://10.0.0.11:8000/v1
      weight: 2
  - model_name: chat
    litellm_params:
      model: openai/Qwen/Qwen2.5-7B-Instruct
      api_base: http://10.0.0.12:8000/v1
      api_key: sk-1234567890abcdef
  - model_name: embed
    litellm_params: {model: hosted_vllm/bge, api_base: "http://10.0.0.13:8000"}
    model_info: {mode: embedding}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY}
  - model_name: tgi
    litellm_params: {model: huggingface/org/llama, api_base: "http://10.0.0.14:8080"}
router_settings:
  model_group_alias: {default: chat, nowhere: gone}
litellm_settings:
  fallbacks: [{chat: [tgi, gpt-4o]}]
general_settings: {master_key: sk-master}
"""

LLAMA_SWAP = f"""
healthCheckTimeout: 300
macros:
  run: docker run --init --rm --gpus '"device=0,1"' -v /srv/hf:/root/.cache/huggingface -e HF_TOKEN={TOKEN}
models:
  qwen:
    aliases: [gpt-4]
    ttl: 600
    cmd: |
      ${{run}} --name ${{MODEL_ID}} -p ${{PORT}}:8000 --shm-size=8g vllm/vllm-openai:v0.32.0
      --model Qwen/Qwen2.5-7B-Instruct --revision {COMMIT} -tp 2
      # the length that fits
      --max-model-len 4096
  local:
    env: ["CUDA_VISIBLE_DEVICES=0"]
    cmd: vllm serve /srv/models/tiny --port ${{PORT}}
  gguf:
    cmd: llama-server --port ${{PORT}} -m /models/x.gguf
groups: {{}}
"""

VALUES = f"""
servingEngineSpec:
  vllmApiKey: sk-key
  modelSpec:
    - name: llama3
      repository: vllm/vllm-openai
      tag: v0.32.0
      modelURL: meta-llama/Llama-3.1-8B-Instruct
      replicaCount: 2
      requestCPU: 10
      requestMemory: 16Gi
      limitMemory: 32Gi
      requestGPU: 1
      pvcStorage: 50Gi
      vllmConfig:
        enableChunkedPrefill: false
        maxModelLen: 4096
        extraArgs: ["--disable-log-requests", "--gpu-memory-utilization", "0.8", "--revision", "{COMMIT}"]
        somethingNew: 3
      hf_token: {TOKEN}
routerSpec:
  serviceDiscovery: static
  staticBackends: "http://10.0.0.1:8000,http://10.0.0.2:8000"
  staticModels: "org/a,org/a"
"""
