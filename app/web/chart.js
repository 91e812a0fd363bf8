// A chart of stacked bars, one for each day. The style sheet has the colors: class `series-0` is the first one.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 240, LEFT = 60, BOTTOM = 24, TOP = 10;
const LABEL = 90; // units of width for a label below the bars

/** Return the chart. days: {label, values}, a value for each series. width: in pixels, so that its texts keep their size. */
export function stackedBars(days, title, width) {
  const most = niceLimit(Math.max(...days.map(({ values }) => sum(values))));
  const height = HEIGHT - TOP - BOTTOM;
  const step = (width - LEFT) / days.length;
  const y = (value) => TOP + height * (1 - value / most);
  const chart = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": title });
  for (const share of [0, 0.5, 1]) {
    chart.append(shape("line", { x1: LEFT, x2: width, y1: y(share * most), y2: y(share * most), class: "grid" }),
      label(LEFT - 8, y(share * most) + 4, short(share * most), "end"));
  }
  const every = Math.ceil(LABEL / step);
  days.forEach(({ label: day, values }, index) => {
    const x = LEFT + index * step;
    let below = 0;
    values.forEach((value, series) => {
      if (value > 0) {
        const bar = shape("rect", { x: x + step * 0.1, width: step * 0.8, y: y(below + value), height: y(below) - y(below + value), class: `series-${series}` });
        const tip = shape("title");
        tip.textContent = `${day}: ${value.toLocaleString()}`;
        bar.append(tip);
        chart.append(bar);
      }
      below += value;
    });
    if (index % every === 0) chart.append(label(x + step / 2, HEIGHT - 6, day.slice(5), "middle"));
  });
  return chart;
}

function shape(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function label(x, y, text, anchor) {
  const made = shape("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const short = (value) => new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 }).format(value);

/** The next number of the form 1, 2 or 5 times a power of ten. */
function niceLimit(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((limit) => limit >= value);
}
