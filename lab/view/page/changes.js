// What a hop has changed of an event's fields. A hop adds fields, and renames some. A renamed field
// is recognised by its value. A short value may belong to any field, so it counts only where the
// names differ only in spelling.

const telling = 8; // characters of a value that is recognised under any name

const spelling = (name) => name.replace(/[-_]/g, '').toLowerCase();

// keyOf returns the same for an object and for its JSON text, which a record has in place of the
// object.
function keyOf(value) {
  if (typeof value === 'string' && value.startsWith('{')) {
    try {
      return JSON.stringify(JSON.parse(value));
    } catch {
      return value;
    }
  }
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

// compare returns a function of a field's name and value for each hop. The function returns '' if
// an earlier hop has the field, '+' if none has, and the earlier name if the field was renamed. A
// hop is [parts, nameOf]. parts are objects, and nameOf returns the table's name for one of their
// members.
export function compare(hops) {
  const byName = new Map(); // spelling and value -> name
  const byValue = new Map(); // value -> name
  return hops.map(([parts, nameOf = (name) => name]) => {
    const all = [];
    parts.forEach((part) => collect(part, nameOf, all));
    const first = byName.size === 0;
    const marks = new Map();
    for (const [name, value, own] of all) {
      const key = keyOf(value);
      const before = byName.get(`${spelling(own)} ${key}`) ?? (key.length >= telling ? byValue.get(key) : undefined);
      marks.set(`${name} ${key}`, first || before === own ? '' : before ?? '+');
    }
    for (const [, value, own] of all.reverse()) { // of two names of one value the first one is kept
      byName.set(`${spelling(own)} ${keyOf(value)}`, own);
      byValue.set(keyOf(value), own);
    }
    return (name, value) => marks.get(`${name} ${keyOf(value)}`) ?? '';
  });
}

function collect(part, nameOf, into) {
  for (const [name, value] of Object.entries(part ?? {})) {
    if (value === null || value === '') continue;
    if (!Array.isArray(part)) into.push([name, value, nameOf(name)]);
    if (typeof value === 'object') collect(value, (own) => own, into);
  }
}

// lines returns the object as indented JSON. Each line has its text and the mark of its field.
export function lines(body, markOf) {
  const all = [];
  const print = (value, indent, name, label, comma) => {
    const nested = value !== null && typeof value === 'object' && Object.keys(value).length > 0;
    const mark = name === null ? '' : markOf(name, value);
    if (!nested) return all.push([`${indent}${label}${JSON.stringify(value)}${comma}`, mark]);
    const list = Array.isArray(value);
    all.push([`${indent}${label}${list ? '[' : '{'}`, mark === '+' ? '' : mark]); // its fields have their own
    Object.entries(value).forEach(([key, one], i, { length }) => {
      print(one, `${indent}  `, list ? null : key, list ? '' : `${JSON.stringify(key)}: `, i < length - 1 ? ',' : '');
    });
    return all.push([`${indent}${list ? ']' : '}'}${comma}`, '']);
  };
  print(body, '', null, '', '');
  return all;
}
