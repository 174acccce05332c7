// The table of the index: search, filters, sorting. Without it the page is a plain table.
const body = document.querySelector('#records tbody'), rows = [...body.rows];
const field = id => document.getElementById(id);
const value = (row, i) => { const v = row.cells[i].dataset.v ?? row.cells[i].textContent; return v === '' ? NaN : isNaN(v) ? v : +v; };
function show() {
  const words = field('text').value.toLowerCase().split(/\s+/).filter(Boolean);
  const rhythm = field('rhythm').value, alarms = field('alarms').value, said = field('said') ? field('said').value : '';
  let seen = 0;
  for (const row of rows) {
    const d = row.dataset;
    const ok = words.every(w => d.text.includes(w)) && (!rhythm || d.rhythms.split(' ').includes(rhythm))
      && (!said || d.said.split('\n').includes(said)) && (!alarms || (alarms === 'none' ? !d.alarms : d.alarms.split(' ').includes(alarms)));
    row.hidden = !ok; seen += ok;
  }
  field('count').textContent = `${seen} of ${rows.length} recordings`;
}
const heads = [...document.querySelectorAll('#records th')];
heads.forEach((head, i) => head.querySelector('button').addEventListener('click', () => {
  const down = head.getAttribute('aria-sort') === 'ascending' || (!head.hasAttribute('aria-sort') && head.className === 'number');
  heads.forEach(other => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const nothing = v => typeof v === 'number' && isNaN(v);
  rows.sort((a, b) => {
    const x = value(a, i), y = value(b, i);
    if (nothing(x) || nothing(y)) return nothing(x) - nothing(y);
    const order = typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y), undefined, {numeric: true});
    return down ? -order : order;
  });
  body.append(...rows);
}));
for (const id of ['text', 'rhythm', 'alarms', 'said']) field(id)?.addEventListener('input', show);
show();
