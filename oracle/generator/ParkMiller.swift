/// The generator of Park and Miller, which gives the same numbers for the same seed everywhere.
///
/// The random steps of the committed scenarios come from this generator, and their seeds give the same steps again.
struct ParkMiller {
  private static let modulus = 2_147_483_647

  private var state: Int

  init(seed: Int) {
    state = seed % (Self.modulus - 1) + 1
    // The first numbers of small seeds are small.
    for _ in 0..<8 { _ = below(2) }
  }

  /// A number from 0 to `limit` - 1.
  mutating func below(_ limit: Int) -> Int {
    state = state * 16807 % Self.modulus
    return Int(Double(state) / Double(Self.modulus) * Double(limit))
  }

  mutating func one<Element>(of elements: [Element]) -> Element { elements[below(elements.count)] }
}
