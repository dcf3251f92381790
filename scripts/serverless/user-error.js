'use strict';

/**
 * The framework prints an error of this name without a stack trace; for an error from a file of
 * variables it prints the stack, which therefore holds only the message.
 */
module.exports = class UserError extends Error {
  name = 'ServerlessError';
  stack = this.message;
};
