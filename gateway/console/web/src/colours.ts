/** The terminal's colours, light and dark; both readable to everybody. */
import type { ITheme } from "@xterm/xterm";
import { isDark } from "./theme";

export function colours(): ITheme {
  return isDark()
    ? {
        background: "#11161c", foreground: "#d7dde4", cursor: "#ffd479", selectionBackground: "#35506b",
        black: "#2a323b", red: "#ff7b72", green: "#7ee787", yellow: "#e3b341", blue: "#79b8ff", magenta: "#d2a8ff", cyan: "#76e3ea", white: "#c9d1d9",
        brightBlack: "#8b949e", brightRed: "#ffa198", brightGreen: "#a5f0ad", brightYellow: "#f2cc60", brightBlue: "#a5d6ff", brightMagenta: "#e2c5ff", brightCyan: "#b3f0f5", brightWhite: "#ffffff",
      }
    : {
        background: "#ffffff", foreground: "#1c2733", cursor: "#1f5f8b", selectionBackground: "#b9d9f0",
        black: "#1c2733", red: "#b3261e", green: "#1a6b2d", yellow: "#7a5400", blue: "#1f5f8b", magenta: "#7b3fa0", cyan: "#0b6a73", white: "#5b6773",
        brightBlack: "#5b6773", brightRed: "#c4382f", brightGreen: "#227a38", brightYellow: "#8a6100", brightBlue: "#2a72a5", brightMagenta: "#8d4fb3", brightCyan: "#147a84", brightWhite: "#3a4653",
      };
}
