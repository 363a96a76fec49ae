// The theme puts tables into boxes that scroll: let the keyboard scroll those that overflow.
const scrolls = new ResizeObserver((boxes) => {
  for (const { target } of boxes) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
document$.subscribe(() => {
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((box) => scrolls.observe(box));
});
