'use strict';

/**
 * The framework prints an error of this name as a sentence, without a stack; of one that a file of
 * variables throws it prints the stack, so that is the sentence alone.
 */
module.exports = class UserError extends Error {
  name = 'ServerlessError';
  stack = this.message;
};
