// One session with the echo server: what is sent, and what comes back. Knows nothing of the page.

import * as Moq from "@moq/net";

import { watchGoaway } from "./goaway.js";

/** The versions that @moq/net and the server share, best first. */
export const VERSIONS = ["moq-lite-05", "moq-lite-04", "moq-lite-03"];

/** Milliseconds that a message waits until it is read, at most. */
const PATIENCE_MS = 60_000;

/** Milliseconds that messages on their way have to come back, once the server has asked to leave. */
const LEAVE_MS = 1_000;

/** A failure, with the step that it happened in: "unsupported", "handshake" or "echo". */
export class ConversationError extends Error {
  constructor(step, cause) {
    super(cause?.message ?? step, { cause });
    this.step = step;
  }
}

/**
 * Opens a session, announces a broadcast on it and waits until the server announces the echo.
 *
 * @param {object} settings
 * @param {URL} settings.url Where the sessions are.
 * @param {string | null} settings.pin The SHA-256 of the certificate in hexadecimal; null trusts the browser's authorities.
 * @param {string[]} settings.versions The versions to offer, best first.
 * @param {string} settings.broadcast The path of the broadcast and of its echo.
 * @param {string} settings.track The track of both.
 * @param {AbortSignal} settings.signal Gives the attempt up.
 * @returns {Promise<Conversation>}
 * @throws {ConversationError}
 */
export async function openConversation(settings) {
  if (!globalThis.isSecureContext || typeof globalThis.WebTransport !== "function") {
    throw new ConversationError("unsupported");
  }
  const transport = new WebTransport(settings.url, {
    protocols: settings.versions,
    congestionControl: "low-latency",
    ...(settings.pin && { serverCertificateHashes: [{ algorithm: "sha-256", value: fromHex(settings.pin) }] }),
  });
  const giveUp = () => transport.close();
  settings.signal.addEventListener("abort", giveUp, { once: true });
  let step = "handshake";
  try {
    await transport.ready;
    step = "echo";
    const watched = watchGoaway(transport);
    const carrier = { transport: watched.transport, signal: settings.signal };
    const connection = await Moq.Connection.connect(settings.url, carrier);
    const conversation = new Conversation(connection, transport, watched.asked, settings);
    await conversation.heard(settings.signal);
    return conversation;
  } catch (error) {
    transport.closed.catch(() => {});
    transport.close();
    throw new ConversationError(step, settings.signal.aborted ? settings.signal.reason : error);
  } finally {
    settings.signal.removeEventListener("abort", giveUp);
  }
}

/** A session on which messages go out, one group each, and come back. */
export class Conversation {
  #connection;
  #transport;
  #broadcast = new Moq.Broadcast.Producer();
  #text;
  #echo;
  #track;
  #waiting = new Map();
  #answered = () => {};
  #sequence = 0;

  /** Resolves when the server asks its clients to leave. */
  askedToLeave;

  constructor(connection, transport, askedToLeave, { broadcast, track }) {
    this.#connection = connection;
    this.#transport = transport;
    this.askedToLeave = askedToLeave;
    this.#track = track;
    this.#text = this.#broadcast.createTrack(track, { latencyMax: PATIENCE_MS, ordered: true });
    this.#echo = connection.announcedBroadcast(broadcast);
    connection.publish(broadcast, this.#broadcast);
  }

  /** The negotiated version, by its name. */
  get version() {
    return this.#connection.version;
  }

  /** What carries the session. */
  get transport() {
    return this.#connection.transport;
  }

  /** Waits until the server announces the echo. */
  async heard(signal) {
    await new Promise((resolve, reject) => {
      const look = (active) => active && resolve();
      this.#echo.active.subscribe(look);
      look(this.#echo.active.peek());
      this.#transport.closed.then(
        ({ reason }) => reject(new Error(reason || "the server closed the session")),
        reject,
      );
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  /** Sends a message as a group of its own, and returns the group's sequence. */
  send(message) {
    const group = new Moq.Group.Producer(this.#sequence++);
    this.#waiting.set(group.sequence, performance.now());
    group.writeString(message);
    group.close();
    this.#text.writeGroup(group);
    return group.sequence;
  }

  /**
   * Yields each message that comes back, until the session ends.
   *
   * @returns {AsyncGenerator<{sequence: number, message: string, roundTrip: number}>} Round trips in milliseconds.
   */
  async *echoes() {
    const track = this.#echo.active.peek().track(this.#track);
    const subscription = track.subscribe({ startGroup: 0, ordered: true, latencyMax: PATIENCE_MS });
    for (let group; (group = await subscription.recvGroup()); ) {
      const message = await group.readString();
      const left = this.#waiting.get(group.sequence);
      if (message === undefined || left === undefined) continue;
      this.#waiting.delete(group.sequence);
      if (this.#waiting.size === 0) this.#answered();
      yield { sequence: group.sequence, message, roundTrip: performance.now() - left };
    }
  }

  /** Ends the session once what was sent has come back, or has had a moment to; nothing more may be sent. */
  async leave() {
    await new Promise((resolve) => {
      this.#answered = resolve;
      setTimeout(resolve, this.#waiting.size > 0 ? LEAVE_MS : 0);
    });
    this.close();
  }

  /** Waits until the session is over, and returns what the server said at the end. */
  async closed() {
    try {
      const { closeCode, reason } = await this.#transport.closed;
      return { closeCode, reason };
    } catch (error) {
      return { closeCode: null, reason: error.message };
    }
  }

  /** Ends the session. */
  close() {
    this.#echo.close();
    this.#broadcast.close();
    this.#connection.close();
  }
}

function fromHex(text) {
  return Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
}
