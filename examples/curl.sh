#!/usr/bin/env bash
# Plain HTTP: submit a job, follow it, fetch its weights.
set -euo pipefail
url=${EPOCHD_URL:-http://127.0.0.1:8000}/v1/jobs

# The key makes it safe to send this again: it is the same job.
id=$(curl --fail-with-body -sS "$url" -H 'Content-Type: application/json' -H "Idempotency-Key: example-$$-$RANDOM" -d '{
  "dataset": "digits", "model": {"name": "cnn"}, "epochs": 20, "batch_size": 64, "early_stopping": {"patience": 3}
}' | grep -o 'job_[0-9a-z]*' | head -n 1)

# Events as they come, each once; the stream ends with the job. After a break: -H "Last-Event-ID: <the last id>".
curl --fail-with-body -sSN "$url/$id/events" -H 'Accept: text/event-stream' | grep '^event:'

# Waits up to 60 s for the end. `"done": true` says that it has come.
until curl --fail-with-body -sS "$url/$id?wait_seconds=60" | grep -q '"done":true'; do :; done

curl --fail-with-body -sS "$url/$id/artifacts/model.safetensors" -o model.safetensors
echo "$id: $(wc -c < model.safetensors) bytes of weights"
