"""A script that trains until the diagnosis has nothing more to suggest, and keeps the weights."""

import sys

from epochd import Client, EpochdError

SPEC = {
    "dataset": "digits",
    "epochs": 6,
    "batch_size": 64,
    "optimizer": {"name": "adamw", "learning_rate": 0.0001},
}
ROUNDS = 4

try:
    with Client() as client:
        job = client.jobs.submit(SPEC)
        for _ in range(ROUNDS):
            for event in job.stream():
                if event.type == "epoch.completed":
                    epoch = event.json()["data"]
                    print(
                        f"epoch {epoch['epoch']:>3}  loss {epoch['train_loss']:.4f}  {epoch['validation_loss']:.4f}"
                    )
            job = job.wait()
            found = job.diagnose()
            print(f"{job.status}: {found.verdict}, {found.evidence}")
            if not found.suggestions:
                break
            print(f"next: {found.suggestions[0].message}")
            job = client.jobs.submit(job.spec, **found.suggestions[0].patch)
        job = job.wait()
        print(*job.download("weights"), sep="\n")
except EpochdError as error:
    sys.exit(f"{error.code}: {error.message}")
