#!/usr/bin/env bash
# In a pipeline: train, and fail unless the model is good enough.
set -euo pipefail
least=${LEAST_ACCURACY:-0.9}

# The exit code is 0 only for a job that succeeded: with `set -e` anything else ends the pipeline here.
epochd submit --dataset digits --model cnn --epochs 20 --batch-size 64 --patience 3 --wait --json > job.json

python3 - "$least" <<'END'
import json, sys
job = json.load(open("job.json"))
accuracy, least = job["metrics"]["validation_accuracy"], float(sys.argv[1])
print(f"{job['id']}: accuracy {accuracy:.3f}, {job['diagnosis']['verdict']}")
sys.exit(0 if accuracy >= least else f"the accuracy is below {least}")
END

epochd download "$(python3 -c 'import json; print(json.load(open("job.json"))["id"])')" --output weights
