// Dark or light: what was chosen here, by `?theme=` or by the switch, else what the system prefers. No module: it runs before the first
// paint, or the page would flash.
(() => {
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : system.matches);
  let chosen = new URLSearchParams(location.search).get('theme');
  try {
    chosen ??= localStorage.getItem('theme');
  } catch {
    // a browser that keeps nothing
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
        // then only for this page
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
