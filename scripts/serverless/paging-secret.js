'use strict';

const crypto = require('node:crypto');

/** Made of the secret that signs tokens, but no token can be made with it. */
module.exports = async ({ resolveVariable }) =>
  crypto
    .createHmac('sha256', await resolveVariable('param:jwtSecret'))
    .update('paging')
    .digest('hex');
