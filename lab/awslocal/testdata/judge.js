// Runs another Kinesis emulator for judge_test.go: node judge.js <module> [arguments]. On stdout it says which port the emulator asked
// for and which one it got, and "passed" for every number of milliseconds on stdin by which its clock is to move on. It ends with stdin,
// so that it never outlives the test.
'use strict'

// The emulators would listen on every interface, at fixed ports. They would close a connection that nobody used for 5 s, perhaps while a
// call is on its way, and the clients of the test do not call twice.
const { Server } = require('net')
const listen = Server.prototype.listen
Server.prototype.listen = function (asked, ...rest) {
  for (const f of rest) if (typeof f === 'function') this.once('listening', f)
  this.keepAliveTimeout = 0
  this.once('listening', () => console.log('listening', asked, this.address().port))
  return listen.call(this, 0, '127.0.0.1')
}

let ahead = 0
const RealDate = Date
globalThis.Date = class extends RealDate {
  constructor(...args) {
    args.length > 0 ? super(...args) : super(RealDate.now() + ahead)
  }
  static now() {
    return RealDate.now() + ahead
  }
}
const origin = performance.timeOrigin
Object.defineProperty(performance, 'timeOrigin', { get: () => origin + ahead })

require('readline').createInterface({ input: process.stdin })
  .on('line', ms => { ahead += Number(ms); console.log('passed') })
  .on('close', () => process.exit())

require(process.argv[2])
