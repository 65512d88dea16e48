// What the tests do with @moq/net at a relay: publish groups, and view those of others. Bundled by the tests.

import * as Moq from "@moq/net";

import { connect } from "./moq_connect.js";

const LATENCY_MAX_MS = 60_000;

globalThis.moq = {
  /** Connects, and returns the version. */
  async connect(where) {
    moq.connection = await connect(where);
    return moq.connection.version;
  },

  /** Announces a broadcast with one track. */
  publish({ path, track }) {
    moq.broadcast = new Moq.Broadcast.Producer();
    moq.track = moq.broadcast.createTrack(track, { latencyMax: LATENCY_MAX_MS, ordered: true });
    moq.connection.publish(path, moq.broadcast);
  },

  /** Writes groups, each a list of frames that are texts, beginning with this sequence. */
  write({ groups, first }) {
    groups.forEach((frames, index) => {
      const group = new Moq.Group.Producer(first + index);
      moq.track.writeGroup(group);
      for (const frame of frames) group.writeString(frame);
      group.close();
    });
  },

  /** Ends the broadcast, and its announcement. */
  end() {
    moq.track.close();
    moq.broadcast.close();
  },

  /** Follows the announcements below a prefix. */
  follow({ prefix }) {
    moq.announced = moq.connection.announced(prefix);
  },

  /** Returns the next announcement, or its end. */
  async next() {
    const { path, active } = await moq.announced.next();
    return { path, active };
  },

  /** Subscribes to a track. */
  subscribe({ path, track }) {
    moq.subscription = moq.connection.consume(path).track(track).subscribe({ ordered: true, latencyMax: LATENCY_MAX_MS });
  },

  /** Returns so many groups with their sequences, once they are whole. */
  async read({ count }) {
    const groups = [];
    while (groups.length < count) {
      const group = await moq.subscription.recvGroup();
      const frames = [];
      for (let text = await group.readString(); text !== undefined; text = await group.readString()) frames.push(text);
      groups.push([group.sequence, frames]);
    }
    return groups;
  },
};
