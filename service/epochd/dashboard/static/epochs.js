// The completed epochs of a job, ascending, and their metrics as curves.

export class Epochs {
  constructor() {
    this.rows = [];
    this.best = null;
  }

  // A row that is there already is replaced: it was trained again.
  add(row) {
    let place = this.rows.length;
    while (place > 0 && this.rows[place - 1].epoch >= row.epoch) place -= 1;
    const known = this.rows[place]?.epoch === row.epoch ? 1 : 0;
    this.rows.splice(place, known, row);
    if (row.is_best) this.best = row;
    else if (this.best?.epoch === row.epoch) this.best = null;
  }

  // A later attempt trains these again.
  forgetFrom(epoch) {
    const first = this.rows.findIndex((row) => row.epoch >= epoch);
    if (first < 0) return;
    this.rows.length = first;
    this.best = this.rows.findLast((row) => row.is_best) ?? null;
  }

  newest(metric) {
    return this.rows.findLast((row) => typeof row[metric] === "number")?.[metric] ?? null;
  }

  first(metric) {
    return this.rows.find((row) => typeof row[metric] === "number")?.[metric] ?? null;
  }

  // A metric between two iterations as {x, y}, with the point before and behind, so that lines reach the edges; of
  // more than `most` points those stay that are smallest and largest among their neighbours. `perEpoch` iterations
  // lie between two epochs.
  curve(metric, perEpoch, [start, end], most = 4000) {
    const begin = this.rows.findIndex((row) => row.epoch * perEpoch >= start);
    if (begin < 0) return { x: [], y: [] };
    let stop = this.rows.findIndex((row) => row.epoch * perEpoch > end);
    stop = stop < 0 ? this.rows.length : stop + 1;
    const inside = this.rows
      .slice(Math.max(0, begin - 1), stop)
      .filter((row) => typeof row[metric] === "number");
    const kept = inside.length > most ? extremes(inside, metric, most) : inside;
    return { x: kept.map((row) => row.epoch * perEpoch), y: kept.map((row) => row[metric]) };
  }
}

function extremes(rows, metric, most) {
  const width = Math.ceil((2 * rows.length) / most);
  const kept = [];
  for (let begin = 0; begin < rows.length; begin += width) {
    const bucket = rows.slice(begin, begin + width);
    const low = bucket.reduce((a, b) => (b[metric] < a[metric] ? b : a));
    const high = bucket.reduce((a, b) => (b[metric] > a[metric] ? b : a));
    kept.push(...(low === high ? [low] : low.epoch < high.epoch ? [low, high] : [high, low]));
  }
  return kept;
}
