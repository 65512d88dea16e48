// What the tests do with @moq/net: publish groups to the echo server, and read what comes back. Bundled by the tests.

import * as Moq from "@moq/net";

import { connect } from "./moq_connect.js";

const LATENCY_MAX_MS = 60_000;
const BROADCAST = "japan/kyoto";
const TRACK = "text";

/** Returns a frame that no other group or frame has, as text of this many characters. */
function frame(group, index, size) {
  return `${group}.${index} `.repeat(Math.ceil(size / 4)).slice(0, size);
}

globalThis.moq = {
  /** Connects with one version, and waits until the server has subscribed and announced the echo. */
  async connect(where) {
    const connection = await connect(where);
    const broadcast = new Moq.Broadcast.Producer();
    const track = broadcast.createTrack(TRACK, { latencyMax: LATENCY_MAX_MS, ordered: true });
    connection.publish(BROADCAST, broadcast);
    const announced = connection.announced("japan");
    const { path, active } = await announced.next();
    const subscription = connection
      .consume(BROADCAST)
      .track(TRACK)
      .subscribe({ startGroup: 0, ordered: true, latencyMax: LATENCY_MAX_MS });
    Object.assign(moq, { connection, broadcast, track, announced, subscription });
    return { version: connection.version, path, active };
  },

  /** Publishes groups of so many frames of this size; returns the sequences of those that came back as they were. */
  async echo({ groups, frames, size, first = 0 }) {
    const whole = [];
    const reading = (async () => {
      for (let count = 0; count < groups; count++) {
        const group = await moq.subscription.recvGroup();
        for (let index = 0; index < frames; index++) {
          if ((await group.readString()) !== frame(group.sequence, index, size)) return;
        }
        if ((await group.readFrame()) === undefined) whole.push(group.sequence);
      }
    })();
    for (let sequence = first; sequence < first + groups; sequence++) {
      const group = new Moq.Group.Producer(sequence);
      moq.track.writeGroup(group);
      for (let index = 0; index < frames; index++) group.writeString(frame(sequence, index, size));
      group.close();
    }
    await reading;
    return whole;
  },

  /** Unannounces the broadcast, and waits until the server unannounces the echo. */
  async unannounce() {
    moq.track.close();
    moq.broadcast.close();
    return await moq.announced.next();
  },
};
