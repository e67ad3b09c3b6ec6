// The size for a presentation makes everything larger by half. The browser keeps it.

import { byId, write } from './write.js';

const root = document.documentElement;

function set(large) {
  if (large) root.dataset.size = 'large';
  else delete root.dataset.size;
  write(byId('size'), large ? 'Shrink' : 'Enlarge');
  try {
    localStorage.setItem('size', large ? 'large' : '');
  } catch {
    // it then holds only for this page
  }
}

const toggle = () => set(root.dataset.size !== 'large');

let kept = '';
try {
  kept = localStorage.getItem('size');
} catch {
  // the browser keeps nothing
}
set(kept === 'large');
byId('size').addEventListener('click', toggle);
addEventListener('keydown', (event) => {
  if (event.key === 'F2') toggle();
});
