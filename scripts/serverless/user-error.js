'use strict';

/** The framework prints an error of this name as a sentence, without a stack. */
module.exports = class UserError extends Error {
  name = 'ServerlessError';
};
