/// The hash of the inputs of a build: SHA-256. A user cannot make other inputs with the same hash, so a build never gets the files of
/// another user's inputs.
package struct InputHash {
  private var state: [UInt32] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab,
    0x5be0_cd19,
  ]
  private var block: [UInt8] = []
  private var length: UInt64 = 0

  package init() {}

  /// Adds a text. Its length is a part of the hash, so that two texts differ from one text that joins them.
  package mutating func add(_ text: String) { add(Array(text.utf8)) }

  package mutating func add(_ bytes: [UInt8]) {
    update(withUnsafeBytes(of: UInt64(bytes.count).littleEndian) { Array($0) })
    update(bytes)
  }

  /// The hash of what was added: 64 hexadecimal digits.
  package var digits: String {
    var copy = self
    return copy.finish().map { byte in
      (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }.joined()
  }

  /// The first digits of the hash, for a name.
  package var name: String { String(digits.prefix(24)) }

  /// The SHA-256 of bytes alone.
  package static func sha256(_ bytes: [UInt8]) -> String {
    var hash = InputHash()
    hash.update(bytes)
    return hash.digits
  }

  /// The SHA-256 of bytes alone, in base64 as a Content-Security-Policy has it.
  package static func base64SHA256(_ bytes: [UInt8]) -> String {
    var hash = InputHash()
    hash.update(bytes)
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    // 32 bytes are ten groups of three, and two more.
    let digest = hash.finish() + [0]
    let groups = stride(from: 0, to: digest.count, by: 3).map { start in
      digest[start..<start + 3].reduce(0) { $0 << 8 | Int($1) }
    }
    let text = groups.flatMap { group in
      [18, 12, 6, 0].map { alphabet[group >> $0 & 0x3f] }
    }
    return String(text.dropLast()) + "="
  }

  private mutating func update(_ bytes: [UInt8]) {
    length += UInt64(bytes.count)
    var rest = bytes[...]
    if !block.isEmpty {
      let taken = rest.prefix(64 - block.count)
      block += taken
      rest = rest.dropFirst(taken.count)
      guard block.count == 64 else { return }
      compress(block[...])
      block = []
    }
    while rest.count >= 64 {
      compress(rest.prefix(64))
      rest = rest.dropFirst(64)
    }
    block = Array(rest)
  }

  private mutating func finish() -> [UInt8] {
    let bits = length * 8
    var end: [UInt8] = [0x80]
    while (block.count + end.count) % 64 != 56 { end.append(0) }
    update(end + withUnsafeBytes(of: bits.bigEndian) { Array($0) })
    return state.flatMap { word in withUnsafeBytes(of: word.bigEndian) { Array($0) } }
  }

  private mutating func compress(_ bytes: ArraySlice<UInt8>) {
    func rotate(_ value: UInt32, _ count: UInt32) -> UInt32 {
      value >> count | value << (32 - count)
    }
    var words = [UInt32](repeating: 0, count: 64)
    for index in 0..<16 {
      let start = bytes.startIndex + index * 4
      words[index] = bytes[start..<start + 4].reduce(0) { $0 << 8 | UInt32($1) }
    }
    for index in 16..<64 {
      let (early, late) = (words[index - 15], words[index - 2])
      let first = rotate(early, 7) ^ rotate(early, 18) ^ early >> 3
      let second = rotate(late, 17) ^ rotate(late, 19) ^ late >> 10
      words[index] = words[index - 16] &+ first &+ words[index - 7] &+ second
    }
    var s = state
    for index in 0..<64 {
      let first = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)
      let choice = s[4] & s[5] ^ ~s[4] & s[6]
      let sum = s[7] &+ first &+ choice &+ Self.constants[index] &+ words[index]
      let second = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)
      let majority = s[0] & s[1] ^ s[0] & s[2] ^ s[1] & s[2]
      s = [sum &+ second &+ majority, s[0], s[1], s[2], s[3] &+ sum, s[4], s[5], s[6]]
    }
    for index in 0..<8 { state[index] = state[index] &+ s[index] }
  }

  /// The fractional parts of the cube roots of the first 64 primes (FIPS 180-4).
  private static let constants: [UInt32] = {
    var primes: [UInt64] = []
    var candidate: UInt64 = 2
    while primes.count < 64 {
      if primes.allSatisfy({ candidate % $0 != 0 }) { primes.append(candidate) }
      candidate += 1
    }
    return primes.map { prime in
      // The largest root with root^3 <= prime * 2^96 has 32 bits of fraction.
      var (low, high): (UInt64, UInt64) = (0, 8 << 32)
      while high - low > 1 {
        let middle = (low + high) / 2
        let square = middle.multipliedFullWidth(by: middle)
        // middle^3 / 2^96 < prime, computed in 128 bits: middle is less than 2^35.
        let cube = (UInt128(square.high) << 64 | UInt128(square.low)) * UInt128(middle)
        if cube <= UInt128(prime) << 96 { low = middle } else { high = middle }
      }
      return UInt32(truncatingIfNeeded: low)
    }
  }()
}
