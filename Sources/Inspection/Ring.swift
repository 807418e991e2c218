/// The last of what was appended, each with the number that it had, from 0.
struct Ring<Element> {
  private var elements: [Element] = []
  private let capacity: Int
  /// How many there ever were: the number of the next.
  private(set) var end: UInt64 = 0

  /// - Parameter capacity: A power of two, so that a number finds its place without a division.
  init(capacity: Int) {
    precondition(capacity.nonzeroBitCount == 1)
    self.capacity = capacity
  }

  /// The number of the first that is still there.
  var start: UInt64 { end - UInt64(elements.count) }

  mutating func append(_ element: Element) {
    // It grows as it fills: a machine that nothing happens to takes no memory for it.
    if elements.count < capacity {
      elements.append(element)
    } else {
      elements[place(of: end)] = element
    }
    end += 1
  }

  subscript(number: UInt64) -> Element { elements[place(of: number)] }

  private func place(of number: UInt64) -> Int { Int(truncatingIfNeeded: number) & (capacity - 1) }
}
