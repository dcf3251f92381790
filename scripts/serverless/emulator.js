'use strict';

const LOOPBACK = new Set(['127.0.0.1', 'localhost', '[::1]']);

/** The emulator's URL if this deployment goes to one, else undefined. */
exports.emulatorUrl = () => {
  const url = process.env.AWS_ENDPOINT_URL;
  return url && LOOPBACK.has(new URL(url).hostname) ? url : undefined;
};
