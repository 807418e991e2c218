/// Ends the fuzzer with the present input as its finding, if the condition is false.
public func check(_ condition: Bool, _ message: @autoclosure () -> String) {
  guard !condition else { return }
  fatalError(message())
}
