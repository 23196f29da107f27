/** What a tab keeps of its sessions between two pages, until signing out. */

const CHANNELS = "postern-channel-";

/** Where the state of a session's channel is kept. */
export const channelKey = (session: string): string => `${CHANNELS}${session}`;

/** Forgets them all: keys that were typed are among what they hold. */
export function forgetChannels(storage: Storage = sessionStorage): void {
  const keys = Array.from({ length: storage.length }, (_, at) => storage.key(at) ?? "");
  for (const key of keys) if (key.startsWith(CHANNELS)) storage.removeItem(key);
}
