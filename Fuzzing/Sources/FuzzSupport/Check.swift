/// Ends the fuzzer, with the input as its finding, where what should be true is not.
public func check(_ condition: Bool, _ message: @autoclosure () -> String) {
  guard !condition else { return }
  fatalError(message())
}
