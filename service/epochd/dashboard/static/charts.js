// Curves over one another on a shared horizontal axis, drawn by Bokeh's scripts, which come out of its Python
// package.
//
// A chart is thrown away and made anew when its colours or its scale change; between that only its data change.

const SCRIPTS = ["/plotting/bokeh.min.js", "/plotting/bokeh-api.min.js"];

const MOST_DOTS = 150;

let loaded = null;

function plotting() {
  loaded ??= SCRIPTS.reduce((before, source) => before.then(() => load(source)), Promise.resolve()).then(
    () => {
      window.Bokeh.set_log_level("error");
      return window.Bokeh;
    },
  );
  return loaded;
}

function load(source) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = source;
    script.addEventListener("load", resolve);
    script.addEventListener("error", () =>
      reject(new Error("The plotting library is not installed with this service.")),
    );
    document.head.append(script);
  });
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const narrow = () => window.matchMedia("(max-width: 600px)").matches;
const byFinger = () => window.matchMedia("(pointer: coarse)").matches;

// Draws `panels` into `place`, one below the other. A panel is {key, title, height, log, lines, number}; a line is
// {key, label, colour, width, alpha, dash, marker, told}: `told` lines show their values under the pointer.
// `onZoom(start, end)` hears of ranges that the reader chose. Gives a Chart.
export async function draw(place, panels, { start, end, xLabel, onZoom }) {
  const Bokeh = await plotting();
  const range = new Bokeh.Range1d({ start, end });
  const built = panels.map((panel, index) =>
    build(Bokeh, panel, range, index === panels.length - 1 ? xLabel : null),
  );
  const column = new Bokeh.Column({
    children: built.map(({ figure }) => figure),
    sizing_mode: "stretch_width",
    spacing: 4,
  });
  place.replaceChildren();
  const view = await Bokeh.Plotting.show(column, place);
  return new Chart(Bokeh, column, range, new Map(built.map((one) => [one.key, one])), view, onZoom);
}

function build(Bokeh, panel, range, xLabel) {
  const ink = colour("ink-faint");
  const figure = Bokeh.Plotting.figure({
    height: panel.height,
    sizing_mode: "stretch_width",
    x_range: range,
    y_axis_type: panel.log ? "log" : "linear",
    toolbar_location: null,
    tools: "",
    background_fill_color: colour("surface"),
    border_fill_color: colour("surface"),
    outline_line_color: null,
    min_border_right: 12,
    min_border_top: 8,
  });
  style(figure, ink, xLabel, panel);
  const sources = new Map(panel.lines.map((line) => [line.key, addLine(Bokeh, figure, line)]));
  figure.add_tools(...tools(Bokeh, panel, sources));
  // Made now and shown later: Bokeh does not take new ones into a figure that is laid out.
  const mark = new Bokeh.Span({
    location: 0,
    dimension: "height",
    visible: false,
    line_color: colour("best"),
    line_dash: "dashed",
    line_width: 1.5,
  });
  const band = new Bokeh.BoxAnnotation({
    left: 0,
    right: 1,
    visible: false,
    level: "underlay",
    line_color: null,
    fill_alpha: 0.09,
  });
  figure.add_layout(mark);
  figure.add_layout(band);
  return { key: panel.key, figure, sources, mark, band };
}

function style(figure, ink, xLabel, panel) {
  const font = "system-ui, sans-serif";
  for (const axis of [...figure.xaxis, ...figure.yaxis]) {
    axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = null;
    axis.major_label_text_color = axis.axis_label_text_color = ink;
    axis.major_label_text_font = axis.axis_label_text_font = font;
    axis.axis_label_text_font_style = "normal";
    axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px";
  }
  for (const axis of figure.xaxis) {
    axis.visible = xLabel !== null;
    axis.axis_label = xLabel ?? "";
    axis.formatter.use_scientific = false;
    axis.ticker.desired_num_ticks = narrow() ? 3 : 8;
  }
  for (const axis of figure.yaxis) {
    axis.axis_label = panel.title;
    axis.fixed_location = null;
    axis.ticker.desired_num_ticks = panel.height > 200 ? 6 : 3;
    if (panel.ticks) axis.formatter = new window.Bokeh.NumeralTickFormatter({ format: panel.ticks });
  }
  figure.left[0].min_width = narrow() ? 52 : 72; // all panels begin at the same place
  for (const grid of [...figure.xgrid, ...figure.ygrid]) grid.grid_line_color = colour("line");
}

function addLine(Bokeh, figure, line) {
  const source = new Bokeh.ColumnDataSource({ data: { x: [], y: [] } });
  const look = { line_color: line.colour, line_width: line.width ?? 2, line_alpha: line.alpha ?? 1, source };
  const renderer = figure.line(
    { field: "x" },
    { field: "y" },
    { ...look, line_dash: line.dash ?? "solid", line_join: "round" },
  );
  const dots = line.marker
    ? figure.scatter(
        { field: "x" },
        { field: "y" },
        { source, size: line.marker, fill_color: line.colour, line_color: null },
      )
    : null;
  return { source, renderer, dots, line };
}

function tools(Bokeh, panel, sources) {
  const told = [...sources.values()].filter(({ line }) => line.told);
  const hovers = told.map(
    ({ renderer, line }) =>
      new Bokeh.HoverTool({
        renderers: [renderer],
        mode: "vline",
        line_policy: "nearest",
        tooltips: [[line.label, `@y{${line.number ?? "0.0000"}} (${panel.at ?? "at"} @x{0,0.[00]})`]],
      }),
  );
  // By finger the page scrolls; the buttons zoom.
  return byFinger() ? hovers : [new Bokeh.BoxZoomTool({ dimensions: "width" }), ...hovers];
}

class Chart {
  constructor(Bokeh, root, range, panels, view, onZoom) {
    this.root = root;
    this.Bokeh = Bokeh;
    this.range = range;
    this.panels = panels;
    this.view = view;
    this.moving = false;
    this.told = null;
    for (const edge of ["start", "end"]) {
      range.properties[edge].change.connect(() => this.moved(onZoom));
    }
  }

  moved(onZoom) {
    if (this.moving || !onZoom) return;
    clearTimeout(this.told);
    this.told = setTimeout(() => onZoom(this.range.start, this.range.end), 150);
  }

  showRange(start, end) {
    this.moving = true;
    this.range.setv({ start, end });
    this.moving = false;
  }

  set(panel, line, x, y) {
    const { figure, sources } = this.panels.get(panel);
    // What is constant, as a learning rate may be, is shown with zero below it.
    figure.y_range.default_span = 2 * Math.abs(y[0] ?? 0.5) || 1;
    const { source, dots } = sources.get(line);
    source.data = { x, y };
    if (dots) dots.visible = x.length <= MOST_DOTS;
  }

  // A vertical line through every panel; null takes it away.
  mark(x) {
    for (const { mark } of this.panels.values())
      mark.setv(x === null ? { visible: false } : { location: x, visible: true });
  }

  // A band from `left` to `right` behind every panel; null takes it away.
  band(edges) {
    for (const { band } of this.panels.values())
      band.setv(edges === null ? { visible: false } : { ...edges, visible: true });
  }

  remove() {
    clearTimeout(this.told);
    this.view.remove();
    const { documents } = this.Bokeh;
    const mine = documents.findIndex((one) => one.roots().includes(this.root));
    if (mine >= 0) documents.splice(mine, 1)[0].clear(); // Bokeh would keep it for ever
  }
}
