// Dark or light. The choice by `?theme=` or by the switch wins over the system's preference. This
// is not a module, so that it runs before the first paint. Otherwise the page would flash.
(() => {
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : system.matches);
  let chosen = new URLSearchParams(location.search).get('theme');
  try {
    chosen ??= localStorage.getItem('theme');
  } catch {
    // the browser keeps nothing
  }
  if (chosen === 'dark' || chosen === 'light') root.dataset.theme = chosen;

  document.addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const show = () => {
      button.textContent = isDark() ? 'Lighten' : 'Darken'; // what it does, and not what is so
      document.dispatchEvent(new Event('themechange'));
    };
    button.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      try {
        localStorage.setItem('theme', root.dataset.theme);
      } catch {
        // it then holds only for this page
      }
      const url = new URL(location.href);
      if (url.searchParams.has('theme')) {
        url.searchParams.set('theme', root.dataset.theme);
        history.replaceState(history.state, '', url);
      }
      show();
    });
    system.addEventListener('change', show);
    show();
  });
})();
