// Light or dark: as the system has it, or as the visitor has chosen. No module, so that it runs before the first paint.
const THEMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
const THEME_KEY = "llm-api.theme";

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme-button");
  if (button) button.textContent = THEMES[theme];
}

function chosenTheme() {
  const theme = localStorage.getItem(THEME_KEY) ?? "";
  return theme in THEMES ? theme : "";
}

showTheme(chosenTheme());
document.addEventListener("DOMContentLoaded", () => {
  showTheme(chosenTheme());
  document.getElementById("theme-button").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(chosenTheme()) + 1) % names.length];
    localStorage.setItem(THEME_KEY, next);
    showTheme(next);
  });
});
